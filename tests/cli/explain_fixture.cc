#include "explain_fixture.h"

#include <algorithm>

#include "module/module_test_tools.h"

namespace polyhead::cli {
namespace {

// Whether a matrix [heads, queries, columns] repeats that of the first head.
bool same_in_every_head(const Numbers& all) {
  const size_t size = all.numbers.size() / static_cast<size_t>(all.shape[0]);
  for (size_t n = size; n < all.numbers.size(); ++n) {
    if (all.numbers[n].value != all.numbers[n % size].value) return false;
  }
  return true;
}

// All of it: what is this small is not cut.
void expect_whole(const Page& page) {
  for (const char* what : {"queries", "keys", "heads"}) {
    EXPECT_EQ(page.meta[what]["count"], page.meta[what]["of"]) << what;
  }
}

}  // namespace

void Explain::SetUp() {
  CommandTest::SetUp();
  save_input("q.npy", {2, 5, 8}, 1);
  save_input("k.npy", {2, 7, 8}, 2);
  save_input("v.npy", {2, 7, 8}, 3);
}

void Explain::save_mha(const std::string& name, MultiheadAttention::Config config) const {
  if (config.embed_dim == 0) config.embed_dim = 8;
  if (config.num_heads == 0) config.num_heads = 2;
  config.layout = Layout::kBatchFirst;
  oracle::random_mha(config).save(path(name));
}

void Explain::save_scratch(const std::string& name, HeadWidth width) const {
  FromScratchMultiHeadAttention module(8, 2, width, 5);
  oracle::randomise_biases(module, 6);
  module.save(path(name));
}

Numbers Explain::first_item(const std::string& name, int sequence) const {
  const Tensor tensor = load_npy(path(name));
  if (tensor.rank() == 2) return numbers_of_tensor(tensor);
  return numbers_of_tensor(tensor.view().select(sequence == 0 ? 1 : 0, 0));
}

Given Explain::given(const Files& files, int64_t num_heads, int sequence) const {
  Given given;
  const SafetensorsFile file(path(files.weights));
  for (const SafetensorsEntry& entry : file.entries()) {
    given.parameters[entry.name] = numbers_of_tensor(file.read(entry.name));
  }
  given.num_heads = num_heads;
  given.other_key = !files.key.empty();
  given.other_value = !files.value.empty();
  given.query = first_item(files.query, sequence);
  given.key = given.other_key ? first_item(files.key, sequence) : given.query;
  given.value = given.other_value ? first_item(files.value, sequence) : given.key;
  return given;
}

std::string Explain::run(const Files& files, const std::vector<std::string>& flags) const {
  std::vector<std::string> arguments = {"explain",   "--weights", files.weights, "--query",
                                        files.query, "--report",  "r.html"};
  if (!files.key.empty()) arguments.insert(arguments.end(), {"--key", files.key});
  if (!files.value.empty()) arguments.insert(arguments.end(), {"--value", files.value});
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const Outcome outcome =
      polyhead(arguments, {.environment = {{"LC_ALL", "C"}, {"COLUMNS", "300"}}});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  // The fast path's result, as `run` gives it.
  arguments[0] = "run";
  arguments[5] = "--out";
  arguments[6] = "fast.npy";
  EXPECT_EQ(polyhead(arguments).code, 0);
  return outcome.out;
}

void Explain::expect_explained(const Files& files, const std::vector<std::string>& flags,
                               const Given& given) {
  const std::string text = run(files, flags);
  const Page page = read_page(this->text("r.html"));
  Expected expected = expected_steps(given);
  constexpr int64_t kFew = 10;
  if (given.query.shape[0] <= kFew) expect_whole(page);
  if (given.mask && page.matrices.at("mask").shape[0] == 1) {  // one stands for all heads
    EXPECT_TRUE(same_in_every_head(expected.at("mask")));
    expected.at("mask").shape[0] = 1;
  }
  expect_page(page, expected);
  const bool first_sequence = std::ranges::count(flags, "--sequence-first") > 0;
  expected["fast"] = first_item("fast.npy", first_sequence ? 0 : 1);
  expect_fast_path(page, expected["fast"]);
  for (const auto& [name, matrix] : page.matrices) {
    EXPECT_TRUE(expected.contains(name) || name == "left_out") << name;
  }
  expect_text(text, expected, page);
}

}  // namespace polyhead::cli
