#include "help_formatter.h"

#include <vector>

namespace polyhead::cli {
namespace {

constexpr size_t kDescriptionColumn = 30;

// "  --flag VALUE    what it does", what it does on a line of its own where the flag is long.
std::string entry(const std::string& left, const std::string& right) {
  std::string line = "  " + left;
  if (line.size() + 2 > kDescriptionColumn) line += "\n";
  const size_t at = line.back() == '\n' ? 0 : line.size();
  return line + std::string(kDescriptionColumn - at, ' ') + right + "\n";
}

std::string option_entry(const CLI::Option* option) {
  const bool positional = option->get_positional();
  std::string left = option->get_name(positional, !positional);
  if (!positional && option->get_type_size() != 0) left += " " + option->get_type_name();
  return entry(left, option->get_description());
}

// Required flags are spelled out, the rest is [flags].
std::string usage(const CLI::App* app, const std::string& name) {
  std::string line = "Usage: " + name;
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_positional()) continue;
    if (option->get_required()) {
      line += " " + option->get_name(false, true) + " " + option->get_type_name();
    }
  }
  if (!app->get_subcommands(nullptr).empty()) return line + " COMMAND ...\n";
  line += " [flags]";
  for (const CLI::Option* option : app->get_options()) {
    if (!option->get_positional()) continue;
    line +=
        " [" + option->get_name(true) + "]" + (option->get_items_expected_max() > 1 ? " ..." : "");
  }
  return line + "\n";
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string name,
                                     CLI::AppFormatMode) const {
  // CLI11 passes the parents' names too: "polyhead run".
  std::string text = name + ": " + app->get_description() + "\n\n" + usage(app, name);
  const auto commands = app->get_subcommands(nullptr);
  if (!commands.empty()) text += "\nCommands:\n";
  for (const CLI::App* command : commands) {
    text += entry(command->get_name(), command->get_description());
  }
  for (const std::string& group : app->get_groups()) {
    std::string entries;
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_group() == group) entries += option_entry(option);
    }
    if (!entries.empty()) text += "\n" + group + ":\n" + entries;
  }
  const std::string footer = app->get_footer();
  return footer.empty() ? text : text + "\n" + footer + "\n";
}

}  // namespace polyhead::cli
