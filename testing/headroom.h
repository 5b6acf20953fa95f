// The ledger of how much of its error budget each suite uses.
//
// Every budget comparison records its use. When the test program ends, the ledger is printed beside
// the checked-in table tests/data/headroom.txt, and the program fails if a suite used more than its
// limit there or has no line: a loosening shows up in review as a changed number.
#pragma once

#include <iosfwd>
#include <map>
#include <string>

namespace polyhead::oracle {

// `use` = max(err / budget) of one comparison, the budget taken with C = 1.
void record_headroom(const std::string& suite, double use);

using Ledger = std::map<std::string, double>;  // suite -> largest use

struct LedgerVerdict {
  bool ok = true;
  std::string table;  // one line per suite: name, use, limit, remark
};

// Table lines: suite limit; '#' starts a comment.
Ledger read_limits(std::istream& table);
LedgerVerdict judge(const Ledger& uses, const Ledger& limits);

}  // namespace polyhead::oracle
