// `polyhead info`: the machine and the plans.
#include <fstream>
#include <iostream>
#include <thread>

#include "arguments.h"
#include "errors.h"
#include "file_info.h"
#include "text.h"

namespace polyhead::cli {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string isa_list() {
  const std::string active = isa();
  std::string list;
  for (const std::string& name : available_isas()) {
    list += (list.empty() ? "" : ", ") + name + (name == active ? " (in use)" : "");
  }
  return list;
}

// How an environment variable took part, for the reader who forgot that it is set.
std::string set_by(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? "" : std::string("  by ") + variable;
}

void print_machine() {
  std::cout << "polyhead " << version() << "\n\n"
            << "CPU      " << cpu_name() << "\n"
            << "ISAs     " << isa_list() << set_by("POLYHEAD_ISA") << "\n"
            << "         ISAs with fused multiply-add give the same bits; baseline has none:\n"
            << "         it keeps the accuracy, not the bits\n"
            << "threads  " << num_threads() << " of "
            << counted(std::thread::hardware_concurrency(), "CPU", "CPUs")
            << set_by("POLYHEAD_NUM_THREADS") << "; results do not depend on it\n";
}

void print_plans(const char* title, const std::vector<PlanInfo>& plans) {
  std::cout << "\n" << title << ":\n";
  size_t width = 0;
  for (const PlanInfo& plan : plans) width = std::max(width, std::string_view(plan.name).size());
  for (const PlanInfo& plan : plans) {
    const std::string name = plan.name;
    std::cout << "  " << name << std::string(width - name.size() + 2, ' ') << plan.when << "\n";
  }
}

}  // namespace

int run_info(const InfoArguments& arguments) {
  if (!arguments.file.empty()) {
    print_file_info(arguments.file, std::cout);
    return kOk;
  }
  print_machine();
  print_plans("Plans for attention; a call takes the first that supports it", attention_plans());
  print_plans("Plans for its gradients; a call takes the first that fits",
              attention_backward_plans());
  return kOk;
}

}  // namespace polyhead::cli
