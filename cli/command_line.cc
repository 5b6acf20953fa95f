#include <CLI/CLI.hpp>
#include <charconv>
#include <map>

#include "arguments.h"
#include "base/escape.h"
#include "base/message.h"
#include "errors.h"
#include "help_formatter.h"
#include "text.h"

namespace polyhead::cli {
namespace {

constexpr const char* kInputs = "Weights and inputs";
constexpr const char* kMasks = "Masks";
constexpr const char* kResults = "Results";
constexpr const char* kLegend =
    "B batch, L queries, S keys, E embed_dim, H heads. npy and safetensors files; run writes\n"
    "its results to files, the others print theirs; errors go to stderr in one line.\n"
    "--map llama: rotary position embeddings are not applied, and grouped key and value heads do\n"
    "not load.";
constexpr const char* kExitCodes =
    "Exit codes: 0 fine; 1 verify found an error beyond the budget, or only NaN; 2 bad\n"
    "usage; 3 a bad file, or files that do not fit together; 4 memory, disk or interruption.\n"
    "Environment: POLYHEAD_NUM_THREADS=n; POLYHEAD_ISA=avx512|avx2|neon|baseline, of those\n"
    "the ones that `polyhead info` lists for this CPU.\n"
    "`polyhead COMMAND --help` lists the flags of one command.";

// A word of the command line, in a message.
std::string shown(const std::string& word) {
  constexpr size_t kLongest = 200;
  return escaped(word, kLongest);
}

[[noreturn]] void no_such(const std::string& flag, const std::string& got,
                          const std::string& need) {
  throw UsageError(message(flag, ": got \"", shown(got), "\"; need ", need));
}

// A flag given twice is a mistake, not a choice.
CLI::Option* once(CLI::Option* option) {
  return option->multi_option_policy(CLI::MultiOptionPolicy::Throw);
}

CLI::Option* add_path(CLI::App* app, const std::string& flag, std::string& path,
                      const std::string& what) {
  const auto store = [flag, &path](const std::string& text) {
    if (text.empty()) no_such(flag, text, "the name of a file");
    path = text;
  };
  return once(app->add_option_function<std::string>(flag, store, what));
}

// Decimal digits only: CLI11 would read "010" as 8.
template <class Integer>
CLI::Option* add_integer(CLI::App* app, const std::string& flag, std::optional<Integer>& number,
                         Integer most, const std::string& what) {
  const auto store = [flag, &number, most](const std::string& text) {
    Integer parsed = 0;
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, parsed);
    if (error != std::errc() || at != end || parsed < 1 || parsed > most) {
      no_such(flag, text, "a whole number from 1 to " + std::to_string(most));
    }
    number = parsed;
  };
  return once(app->add_option_function<std::string>(flag, store, what))->type_name("N");
}

template <class Choice, class Target>
CLI::Option* add_choice(CLI::App* app, const std::string& flag, Target& target,
                        const std::vector<std::pair<std::string, Choice>>& choices,
                        const std::string& what) {
  std::string names;
  for (const auto& [name, choice] : choices) names += (names.empty() ? "" : "|") + name;
  const auto store = [flag, &target, choices, names](const std::string& text) {
    for (const auto& [name, choice] : choices) {
      if (text == name) {
        target = choice;
        return;
      }
    }
    no_such(flag, text, names);
  };
  return once(app->add_option_function<std::string>(flag, store, what))->type_name(names);
}

void add_inputs(CLI::App* app, ModuleArguments& a) {
  add_path(app, "--weights", a.weights, "state dict of the module")
      ->required()
      ->type_name("W.safetensors");
  add_path(app, "--query", a.query, "[B, L, E], or [L, E] unbatched")
      ->required()
      ->type_name("Q.npy");
  add_path(app, "--key", a.key, "[B, S, kdim]; without: the query")->type_name("K.npy");
  add_path(app, "--value", a.value, "[B, S, vdim]; without: the key")->type_name("V.npy");
  constexpr int64_t kMostHeads = 1'000'000;
  add_integer<int64_t>(app, "--num-heads", a.num_heads, kMostHeads,
                       "heads of the module; without: num_heads in the file's __metadata__");
  once(app->add_option("--prefix", a.prefix, "of the module's names in the file, \"encoder.0.\""))
      ->type_name("NAME.");
  add_path(app, "--map", a.map, "the file's names are another model's; llama: see below")
      ->type_name("bert|vit|llama|NAMES.json");
  add_choice<LayoutChoice>(app, "--layout", a.layout,
                           {{"auto", LayoutChoice::kAuto},
                            {"mha", LayoutChoice::kMha},
                            {"scratch", LayoutChoice::kScratch}},
                           "nn.MultiheadAttention or the from-scratch module; auto: by the names");
  app->add_flag("--sequence-first", a.sequence_first, "3-D inputs are [L, B, E]");
  for (CLI::Option* option : app->get_options()) {
    if (option != app->get_help_ptr()) option->group(kInputs);
  }
}

void add_masks(CLI::App* app, ModuleArguments& a) {
  const std::vector<CLI::Option*> options = {
      add_path(app, "--attn-mask", a.attn_mask,
               "[L, S], [B*H, L, S] or 4-D; bool: true hides; float: added to the scores")
          ->type_name("M.npy"),
      add_path(app, "--key-padding-mask", a.key_padding_mask, "[B, S], bool or float")
          ->type_name("P.npy"),
      app->add_flag("--causal", a.causal, "query i sees keys j <= i"),
      add_choice<CausalAlign>(
          app, "--causal-align", a.causal_align,
          {{"top-left", CausalAlign::kTopLeft}, {"bottom-right", CausalAlign::kBottomRight}},
          "which corner the causal triangle starts from when L != S"),
      app->add_flag("--add-zero-attn", a.add_zero_attn, "one more key and value, all zero"),
      add_choice<EmptyRow>(app, "--empty-rows", a.empty_rows,
                           {{"zero", EmptyRow::kZero}, {"nan", EmptyRow::kNan}},
                           "what a query gives that sees no key"),
      add_path(app, "--scratch-mask", a.scratch_mask,
               "for the from-scratch module: times -1e5, added to the scores")
          ->type_name("M.npy")};
  for (CLI::Option* option : options) option->group(kMasks);
}

void add_results(CLI::App* app, ModuleArguments& a, const char* report) {
  const std::vector<CLI::Option*> options = {
      add_choice<WeightsMode>(app, "--need-weights", a.need_weights,
                              {{"none", WeightsMode::kNone},
                               {"average", WeightsMode::kAverage},
                               {"per-head", WeightsMode::kPerHead}},
                              "attention weights, averaged over the heads or of each"),
      add_path(app, "--weights-out", a.weights_out, "where they go; alone it means average")
          ->type_name("A.npy"),
      add_path(app, "--report", a.report, report)->type_name("R.html"),
      add_integer<int>(app, "--threads", a.threads, 1024, "results do not depend on it")};
  for (CLI::Option* option : options) option->group(kResults);
}

// Layout and mask flags that exclude each other are known here only where --layout says one.
void check_combinations(const ModuleArguments& a) {
  if (a.causal_align && !a.causal) throw UsageError("--causal-align: needs --causal");
  if (!a.weights_out.empty() && a.need_weights == WeightsMode::kNone) {
    throw UsageError("--weights-out: needs --need-weights average or per-head; got none");
  }
  if (a.layout != LayoutChoice::kAuto) {
    check_layout_flags(a, a.layout == LayoutChoice::kScratch, "--layout");
  }
}

// `verify` compares the weights, `explain` shows them; `run` would compute them for nothing.
void check_weights_are_written(const RunArguments& a) {
  if (!a.weights_out.empty() || !a.report.empty()) return;
  if (a.need_weights.value_or(WeightsMode::kNone) == WeightsMode::kNone) return;
  throw UsageError("--need-weights: needs --weights-out, where they go");
}

// CLI11 begins its messages with the option's name.
std::string reworded(bool without_command, const CLI::ParseError& error) {
  const std::string text = error.what();
  const std::string flag = text.substr(0, text.find(": "));
  if (without_command) return "needs a command: run, verify, explain, demo or info";
  if (dynamic_cast<const CLI::ConversionError*>(&error)) {
    // Texts need no conversion, so this is `--causal=maybe`.
    return replaced(shown(text), "Could not convert: ", "") + ": this flag takes no value";
  }
  if (!dynamic_cast<const CLI::ArgumentMismatch*>(&error)) return text;
  return flag + (text.ends_with("missing") ? ": needs a value" : ": given more than once");
}

class CommandLine {
 public:
  CommandLine();
  Arguments parse(int argc, const char* const* argv);

 private:
  CLI::App* add(const std::string& name, const std::string& what, const std::string& footer = "");
  CLI::App* add_module_command(ModuleArguments& arguments, const std::string& name,
                               const std::string& what);
  Arguments chosen() const;
  [[noreturn]] void fail(const CLI::App* app, const CLI::ParseError& error) const;

  CLI::App app_;
  std::map<std::string, CLI::App*> commands_;
  RunArguments run_;
  VerifyArguments verify_;
  ExplainArguments explain_;
  DemoArguments demo_;
  InfoArguments info_;
};

CommandLine::CommandLine() : app_("multi-head attention for trained weights", "polyhead") {
  app_.formatter(std::make_shared<HelpFormatter>());
  app_.require_subcommand(1);
  app_.set_version_flag("--version", std::string("polyhead ") + version(), "print the version");
  app_.set_help_flag("--help,-h", "print this");
  app_.footer(kExitCodes);

  CLI::App* run = add_module_command(run_, "run", "compute the output of a trained module");
  add_path(run, "--out", run_.out, "the output, shaped as the query")
      ->required()
      ->type_name("O.npy")
      ->group(kResults);
  CLI::App* verify = add_module_command(
      verify_, "verify", "compare the fast path with a reference in double; exit 1 if it is off");
  verify->add_flag("--json", verify_.json, "the verdict as JSON")->group(kResults);
  add_module_command(explain_, "explain", "show the computation step by step, with its numbers");

  CLI::App* demo = add("demo", "look into a real model: sentences, their attention, proofs");
  add_path(demo, "--model", demo_.model,
           "folder with config.json, tokenizer.json, model.safetensors")
      ->required()
      ->type_name("DIR");
  add_path(demo, "--report", demo_.report, "the page of heads (" + demo_.report + ")")
      ->type_name("R.html");
  demo->add_option("sentence", demo_.sentences, "what to look at; without: our own examples");
  CLI::App* info = add("info", "the machine and the plans, or what a file holds");
  add_path(info, "FILE", info_.file, "safetensors or npy");
}

CLI::App* CommandLine::add(const std::string& name, const std::string& what,
                           const std::string& footer) {
  CLI::App* app = commands_[name] = app_.add_subcommand(name, what);
  app->set_help_flag("--help,-h", "print this");
  app->footer(footer);
  return app;
}

CLI::App* CommandLine::add_module_command(ModuleArguments& arguments, const std::string& name,
                                          const std::string& what) {
  CLI::App* app = add(name, what, kLegend);
  add_inputs(app, arguments);
  add_masks(app, arguments);
  add_results(app, arguments,
              name == "explain" ? "the same as a page, for any query and head"
                                : "a page that shows each head");
  return app;
}

// CLI11's own words are vague; ours say what is wrong, and the likely intent.
void CommandLine::fail(const CLI::App* app, const CLI::ParseError& error) const {
  const std::vector<std::string> extras = app->remaining(true);
  if (extras.empty()) throw UsageError(reworded(app == &app_, error));
  const std::string& word = extras.front();
  std::vector<std::string> choices;
  const bool is_flag = word.rfind("-", 0) == 0;
  for (const CLI::Option* option : app->get_options()) {
    if (is_flag) choices.push_back(option->get_name(false, false));
  }
  for (const auto& [name, command] : commands_) {
    if (!is_flag && app == &app_) choices.push_back(name);
  }
  const std::string meant = nearest(word, choices);
  throw UsageError(message(app == &app_ && !is_flag ? "no such command: \"" : "not expected: \"",
                           shown(word), "\"",
                           meant.empty() ? "" : "; did you mean " + meant + "?"));
}

Arguments CommandLine::parse(int argc, const char* const* argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return PrintArguments{app_.help()};
  } catch (const CLI::CallForVersion& wanted) {
    return PrintArguments{std::string(wanted.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    const auto parsed = app_.get_subcommands();
    fail(parsed.empty() ? &app_ : parsed.front(), error);
  }
  return chosen();
}

Arguments CommandLine::chosen() const {
  const std::string name = app_.get_subcommands().front()->get_name();
  if (name == "demo") return demo_;
  if (name == "info") return info_;
  if (name == "verify") {
    check_combinations(verify_);
    return verify_;
  }
  if (name == "explain") {
    check_combinations(explain_);
    return explain_;
  }
  check_combinations(run_);
  check_weights_are_written(run_);
  return run_;
}

}  // namespace

void check_layout_flags(const ModuleArguments& a, bool scratch, const std::string& because) {
  if (!scratch && !a.scratch_mask.empty()) {
    throw UsageError("--scratch-mask: belongs to the from-scratch module; " + because +
                     " says nn.MultiheadAttention: use --attn-mask or --key-padding-mask");
  }
  if (!scratch) return;
  const std::pair<const char*, bool> flags[] = {{"--attn-mask", !a.attn_mask.empty()},
                                                {"--key-padding-mask", !a.key_padding_mask.empty()},
                                                {"--causal", a.causal},
                                                {"--add-zero-attn", a.add_zero_attn},
                                                {"--empty-rows", a.empty_rows.has_value()}};
  for (const auto& [flag, given] : flags) {
    if (!given) continue;
    throw UsageError(std::string(flag) + ": belongs to nn.MultiheadAttention; " + because +
                     " says the from-scratch module, whose mask is --scratch-mask");
  }
}

Arguments parse_command_line(int argc, const char* const* argv) {
  if (argc > 1 && argv[1] == std::string_view("help")) {  // `polyhead help run`: run --help
    std::vector<const char*> words(argv + 2, argv + argc);
    words.insert(words.begin(), argv[0]);
    words.push_back("--help");
    return CommandLine().parse(static_cast<int>(words.size()), words.data());
  }
  return CommandLine().parse(argc, argv);
}

const char* command_name(int argc, const char* const* argv) {
  static constexpr const char* kNames[] = {"polyhead run", "polyhead verify", "polyhead explain",
                                           "polyhead demo", "polyhead info"};
  for (const char* name : kNames) {
    if (argc > 1 && argv[1] == std::string_view(name).substr(9)) return name;
  }
  return "polyhead";
}

}  // namespace polyhead::cli
