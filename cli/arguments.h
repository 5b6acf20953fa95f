// The command line, as data. Parsing it (command_line.cc) is the only place that knows CLI11.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include <polyhead/polyhead.h>
#include "demo.h"

namespace polyhead::cli {

enum class LayoutChoice { kAuto, kMha, kScratch };

// What `run`, `verify` and `explain` share. An empty path means: not given.
struct ModuleArguments {
  std::string weights, query, key, value;
  std::optional<int64_t> num_heads = {};
  std::string prefix, map;
  LayoutChoice layout = LayoutChoice::kAuto;
  std::string attn_mask, key_padding_mask, scratch_mask;
  bool causal = false;
  std::optional<CausalAlign> causal_align = {};
  bool add_zero_attn = false, sequence_first = false;
  std::optional<EmptyRow> empty_rows = {};
  std::optional<WeightsMode> need_weights = {};
  std::string weights_out, report;
  std::optional<int> threads = {};
};

struct RunArguments : ModuleArguments {
  std::string out;
};
struct VerifyArguments : ModuleArguments {
  bool json = false;
};
struct ExplainArguments : ModuleArguments {};
struct InfoArguments {
  std::string file;
};
// What was asked for is printed text: --help, --version.
struct PrintArguments {
  std::string text;
};

using Arguments = std::variant<PrintArguments, RunArguments, VerifyArguments, ExplainArguments,
                               DemoArguments, InfoArguments>;

// Throws UsageError, its message without the command's name.
Arguments parse_command_line(int argc, const char* const* argv);

// Throws UsageError if a flag belongs to the other of the two modules; `because` is what told the
// layout ("--layout", or the weights' file).
void check_layout_flags(const ModuleArguments& arguments, bool scratch, const std::string& because);

// "polyhead run" for `polyhead run ...`: how error lines start. Static storage.
const char* command_name(int argc, const char* const* argv);

// One per subcommand; they return the exit code.
int run_run(const RunArguments& arguments);
int run_verify(const VerifyArguments& arguments);
int run_explain(const ExplainArguments& arguments);
int run_info(const InfoArguments& arguments);

}  // namespace polyhead::cli
