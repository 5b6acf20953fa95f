#include "testing/headroom.h"

#include <algorithm>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <mutex>
#include <sstream>

#include <gtest/gtest.h>
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

class LedgerEnvironment : public ::testing::Environment {
 public:
  void record(const std::string& suite, double use) {
    const std::lock_guard<std::mutex> lock(mutex_);
    double& largest = uses_[suite];
    largest = std::max(largest, use);
  }

  void TearDown() override {
    if (uses_.empty()) return;
    std::ifstream table(POLYHEAD_TEST_DATA "/headroom.txt");
    const LedgerVerdict verdict = judge(uses_, read_limits(table));
    std::cout << "[ HEADROOM ] share of the error budget used, and its limit\n" << verdict.table;
    EXPECT_TRUE(verdict.ok) << "a suite exceeds its limit in tests/data/headroom.txt, or has none";
  }

 private:
  std::mutex mutex_;
  Ledger uses_;
};

// GoogleTest owns it. Lives in this file so that whoever records also judges.
LedgerEnvironment* ledger() {
  static auto* const environment = new LedgerEnvironment;
  return environment;
}

[[maybe_unused]] const auto* const g_registered = ::testing::AddGlobalTestEnvironment(ledger());

}  // namespace

void record_headroom(const std::string& suite, double use) { ledger()->record(suite, use); }

Ledger read_limits(std::istream& table) {
  Ledger limits;
  for (std::string line; std::getline(table, line);) {
    std::istringstream fields(line.substr(0, line.find('#')));
    std::string suite;
    double limit;
    if (fields >> suite >> limit) limits[suite] = limit;
  }
  return limits;
}

LedgerVerdict judge(const Ledger& uses, const Ledger& limits) {
  LedgerVerdict verdict;
  std::ostringstream text;
  text << std::fixed << std::setprecision(4);
  for (const auto& [suite, use] : uses) {
    const auto limit = limits.find(suite);
    text << "  " << std::left << std::setw(48) << suite << std::right << std::setw(10) << use;
    if (limit == limits.end()) {
      text << "   NO LIMIT: add a line to the table\n";
      verdict.ok = false;
      continue;
    }
    text << std::setw(10) << limit->second;
    if (!(use <= limit->second)) {
      text << "   BEYOND ITS LIMIT";
      verdict.ok = false;
    } else if (use < kDecoration) {
      text << "   warning: so little that the budget is decoration";
    }
    text << "\n";
  }
  verdict.table = text.str();
  return verdict;
}

}  // namespace polyhead::oracle
