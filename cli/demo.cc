#include "demo.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <numeric>

#include <polyhead/polyhead.h>
#include "base/escape.h"
#include "base/message.h"
#include "demo/bert_encoder.h"
#include "demo/head_roles.h"
#include "demo/proof.h"
#include "demo/tables.h"
#include "demo/word_piece.h"
#include "interrupt.h"
#include "output_files.h"
#include "report/report.h"
#include "terminal.h"
#include "text.h"

namespace polyhead::cli {
namespace {

// Two wordings of three things; "bank" stands in two of them and means two things.
const char* const kSentences[] = {
    "The cat is sleeping on the warm sofa.",     "A kitten naps on the couch.",
    "The bank raised its interest rates.",       "Borrowing money became more expensive.",
    "We had a picnic on the bank of the river.", "They ate sandwiches by the water.",
};

class Stopwatch {
 public:
  std::string ms() const {
    const std::chrono::duration<double, std::milli> passed = Clock::now() - begin_;
    char text[40];
    std::snprintf(text, sizeof text, "%.0f ms", passed.count());
    return text;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

using Sentences = std::vector<std::vector<Token>>;

void print_heading(const std::string& text) {
  std::cout << "\n" << stdout_terminal().bold(text) << "\n" << std::flush;
}

// A sentence longer than the model's positions loses its end, but keeps [SEP].
bool cut(std::vector<Token>* tokens, int64_t max_len) {
  if (static_cast<int64_t>(tokens->size()) <= max_len) return false;
  tokens->erase(tokens->begin() + max_len - 1, tokens->end() - 1);
  return true;
}

Sentences tokenize(const WordPiece& tokenizer, const std::vector<std::string>& texts,
                   int64_t max_len) {
  constexpr size_t kShownBytes = 100;
  print_heading("Sentences");
  Sentences sentences;
  for (const std::string& text : texts) {
    sentences.push_back(tokenizer.encode(text));
    const bool shortened = cut(&sentences.back(), max_len);
    std::cout << "  " << sentences.size() << "  " << escaped(text, kShownBytes) << "  "
              << stdout_terminal().dim(
                     counted(static_cast<int64_t>(sentences.back().size()), "token", "tokens") +
                     (shortened ? ", its end cut off" : ""))
              << "\n";
  }
  return sentences;
}

TokenBatch batch_of(const Sentences& sentences) {
  std::vector<std::vector<int32_t>> ids;
  for (const auto& sentence : sentences) {
    ids.emplace_back();
    for (const Token& token : sentence) ids.back().push_back(token.id);
  }
  return TokenBatch(std::move(ids));
}

std::vector<std::string> labels_of(const std::vector<Token>& tokens) {
  std::vector<std::string> labels;
  for (const Token& token : tokens) labels.push_back(token.text);
  return labels;
}

// As many sentences from the first as a page takes.
size_t sentences_that_fit(const Sentences& sentences, const BertConfig& config) {
  int64_t total = 0;
  for (size_t i = 0; i < sentences.size(); ++i) {
    const auto len = static_cast<int64_t>(sentences[i].size());
    total += config.num_layers * config.num_heads * len * len;
    if (total > kMaxReportWeights) return i;
  }
  return sentences.size();
}

struct Shown {
  const std::vector<std::string>& texts;
  const Sentences& sentences;
  const Encoding& encoding;
  const std::vector<std::vector<HeadSummary>>& heads;
};

ReportData report_data(const Shown& shown, const BertConfig& config) {
  const size_t count = sentences_that_fit(shown.sentences, config);
  ReportData data = {
      .title = "What the heads look at",
      .subtitle =
          message(config.name, ": ", config.num_layers, " layers of ", config.num_heads, " heads"),
      .facts = {message("Computed by Polyhead ", version(), " on ", isa(), ", float32.")},
      .items = {},
      .layers = {}};
  if (count < shown.sentences.size()) {
    data.facts.push_back(message("The page holds the first ", count, " of ", shown.sentences.size(),
                                 " sentences: more would be too large."));
  }
  for (size_t i = 0; i < count; ++i) {
    const auto labels = labels_of(shown.sentences[i]);
    data.items.push_back({shown.texts[i], labels, labels});
  }
  for (size_t l = 0; l < shown.encoding.weights.size(); ++l) {
    std::vector<std::string> notes;
    for (const HeadSummary& summary : shown.heads[l]) {
      notes.push_back("over all sentences: " + summary.words);
    }
    data.layers.push_back(
        {message("Layer ", l + 1),
         shown.encoding.weights[l].view().narrow(0, 0, static_cast<int64_t>(count)), notes});
  }
  return data;
}

// Before anything is read: the page must not replace what it is made of.
void check_page_path(const DemoArguments& arguments) {
  if (arguments.report.empty()) return;
  std::vector<std::string> model;
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    model.push_back((std::filesystem::path(arguments.model) / name).string());
  }
  check_output_paths({{"--report", arguments.report, {}}}, model);
}

void write_page(const std::string& path, const Shown& shown, const BertConfig& config) {
  const DeferSignals defer;
  write_report(path, report_data(shown, config));
  defer.check();
  const auto kilobytes = std::filesystem::file_size(path) / 1000;
  std::cout << "\n"
            << escaped(path) << ": every head of every sentence, " << kilobytes
            << " kB; open it in a browser.\n";
}

// True if all claims hold.
bool print_proof(const BertEncoder& encoder, const TokenBatch& batch, const Encoding& encoding,
                 ProgressLine* progress) {
  print_heading("Proof, measured now");
  bool all_hold = true;
  const auto print = [&](const ProofLine& line) {
    progress->clear();
    std::cout << (line.holds ? "  ok     " : "  WRONG  ") << line.text << "\n" << std::flush;
    all_hold = all_hold && line.holds;
  };
  progress->show("the same sentences on other threads and instruction sets ...");
  print(prove_same_bits(encoder, batch));
  progress->show("the double reference ...");
  print(prove_accuracy(encoder, batch, encoding));
  print(prove_empty_row(encoder, encoding));
  progress->show("speed ...");
  print(measure_speed(encoder));
  return all_hold;
}

BertEncoder load_encoder(const std::string& folder, ProgressLine* progress) {
  const Stopwatch watch;
  BertEncoder encoder = BertEncoder::load(folder, [&](int64_t done, int64_t total) {
    progress->show(message("reading the model: ", 100 * done / total, " %"));
  });
  progress->clear();
  const BertConfig& config = encoder.config();
  std::cout << escaped(config.name) << ": " << config.num_layers << " layers, " << config.num_heads
            << " heads of " << config.embed_dim / config.num_heads << ", read in " << watch.ms()
            << "\n"
            << std::flush;
  return encoder;
}

std::vector<std::vector<HeadSummary>> print_heads(const Encoding& encoding,
                                                  const Sentences& sentences) {
  print_heading("Heads");
  std::vector<std::vector<HeadSummary>> heads;
  for (const Tensor& weights : encoding.weights) {
    heads.push_back(summarise_heads(weights, sentences));
  }
  std::cout << heads_text(heads, stdout_terminal());
  print_heading("The clearest head for each kind of token");
  std::cout << clearest_heads_text(heads) << std::flush;
  return heads;
}

}  // namespace

int run_demo(const DemoArguments& arguments) {
  check_page_path(arguments);
  std::cout << "Polyhead " << version() << ", " << isa() << ", "
            << counted(num_threads(), "thread", "threads") << "\n"
            << std::flush;
  ProgressLine progress;
  const BertEncoder encoder = load_encoder(arguments.model, &progress);
  const WordPiece tokenizer = WordPiece::load(arguments.model);
  const std::vector<std::string> texts =
      arguments.sentences.empty()
          ? std::vector<std::string>(std::begin(kSentences), std::end(kSentences))
          : arguments.sentences;
  const Sentences sentences = tokenize(tokenizer, texts, encoder.config().max_len);
  const TokenBatch batch = batch_of(sentences);

  const Stopwatch watch;
  const Encoding encoding = encoder.run(batch);
  std::cout << stdout_terminal().dim(
                   message("  ", encoder.config().num_layers, " layers computed in ", watch.ms()))
            << "\n";
  const std::string similarity =
      similarity_text(sentence_vectors(batch, encoding.hidden_states.back()), stdout_terminal());
  if (!similarity.empty()) {
    print_heading("Similarity of each pair");
    std::cout << similarity;
  }
  const auto heads = print_heads(encoding, sentences);
  if (!arguments.report.empty()) {
    write_page(arguments.report, {texts, sentences, encoding, heads}, encoder.config());
  }
  return print_proof(encoder, batch, encoding, &progress) ? 0 : 1;
}

}  // namespace polyhead::cli
