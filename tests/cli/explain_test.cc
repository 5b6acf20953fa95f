// `explain` against the definition, number by number: all that its page holds and its text prints.
#include <limits>

#include "explain_fixture.h"
#include "module/module_test_tools.h"

namespace polyhead::cli {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

TEST_F(Explain, AMultiheadAttentionWithoutOptions) {
  save_mha("w.safetensors", {});
  expect_explained({"w.safetensors", "q.npy"}, {}, given({"w.safetensors", "q.npy"}));
  const Files cross = {"w.safetensors", "q.npy", "k.npy"};
  expect_explained(cross, {}, given(cross));
  const Files all = {"w.safetensors", "q.npy", "k.npy", "v.npy"};
  expect_explained(all, {}, given(all));
}

TEST_F(Explain, WithoutBiasesAndInDouble) {
  save_mha("w.safetensors", {.bias = false, .dtype = DType::kFloat64});
  const Tensor q = load_npy(path("q.npy"));
  save_npy(path("d.npy"), oracle::converted(q, DType::kFloat64));
  expect_explained({"w.safetensors", "d.npy"}, {}, given({"w.safetensors", "d.npy"}));
}

TEST_F(Explain, KeysAndValuesOfOtherWidths) {
  save_mha("w.safetensors", {.kdim = 6, .vdim = 3});
  save_input("k6.npy", {2, 7, 6}, 4);
  save_input("v3.npy", {2, 7, 3}, 5);
  const Files files = {"w.safetensors", "q.npy", "k6.npy", "v3.npy"};
  expect_explained(files, {}, given(files));
}

TEST_F(Explain, AppendedColumns) {
  const Files files = {"w.safetensors", "q.npy", "k.npy"};
  for (const bool learned : {false, true}) {
    for (const bool zero : {false, true}) {
      save_mha("w.safetensors", {.add_bias_kv = learned});
      Given given = this->given(files);
      given.zero_attn = zero;
      given.mask = [](int64_t, int64_t i, int64_t j) { return j <= i ? 0 : -kInf; };
      std::vector<std::string> flags = {"--causal"};
      if (zero) flags.push_back("--add-zero-attn");
      expect_explained(files, flags, given);
    }
  }
}

TEST_F(Explain, BooleanMasksAndAQueryThatSeesNothing) {
  save_mha("w.safetensors", {});
  const Files files = {"w.safetensors", "q.npy", "k.npy"};
  std::vector<int> hides(35), pads(14);
  for (size_t n = 0; n < 35; ++n) hides[n] = n / 7 == 1 || n % 3 == 1;
  pads[6] = pads[8] = 1;  // of item 1: key 6
  save_bools("m.npy", {5, 7}, hides);
  save_bools("p.npy", {2, 7}, pads);
  Given given = this->given(files);
  given.mask = [&](int64_t, int64_t i, int64_t j) {
    return hides[static_cast<size_t>(i * 7 + j)] || pads[static_cast<size_t>(j)] ? -kInf : 0;
  };
  const std::vector<std::string> flags = {"--attn-mask", "m.npy", "--key-padding-mask", "p.npy"};
  expect_explained(files, flags, given);
  given.nan_rows = true;
  std::vector<std::string> nan = flags;
  nan.insert(nan.end(), {"--empty-rows", "nan"});
  expect_explained(files, nan, given);
}

TEST_F(Explain, AdditiveMasksOfEachHead) {
  save_mha("w.safetensors", {});
  const Files files = {"w.safetensors", "q.npy", "k.npy"};
  const Tensor mask = save_input("m.npy", {4, 5, 7}, 8);  // [batch * heads, L, S]
  const Tensor padding = save_input("p.npy", {2, 7}, 9);
  Given given = this->given(files);
  given.mask = [&](int64_t h, int64_t i, int64_t j) {
    const float sum = mask.data_as<float>()[(h * 5 + i) * 7 + j] + padding.data_as<float>()[j];
    return static_cast<double>(sum);  // masks are summed in the dtype of the module
  };
  expect_explained(files, {"--attn-mask", "m.npy", "--key-padding-mask", "p.npy"}, given);
}

TEST_F(Explain, CausalFromEitherCorner) {
  save_mha("w.safetensors", {});
  const Files files = {"w.safetensors", "q.npy", "k.npy"};
  Given given = this->given(files);
  given.mask = [](int64_t, int64_t i, int64_t j) { return j <= i + 2 ? 0 : -kInf; };
  expect_explained(files, {"--causal", "--causal-align", "bottom-right"}, given);
  const Files long_query = {"w.safetensors", "k.npy", "q.npy"};  // 7 queries, 5 keys
  given = this->given(long_query);
  given.mask = [](int64_t, int64_t i, int64_t j) { return j <= i - 2 ? 0 : -kInf; };
  expect_explained(long_query, {"--causal", "--causal-align", "bottom-right"}, given);
}

TEST_F(Explain, SequenceFirstAndUnbatched) {
  save_mha("w.safetensors", {});
  save_scratch("s.safetensors", HeadWidth::kSplit);
  const Tensor q = load_npy(path("q.npy"));
  save_npy(path("u.npy"), q.view().select(0, 0));
  for (const char* weights : {"w.safetensors", "s.safetensors"}) {
    const Files turned = {weights, "q.npy"};  // 2 positions of 5 items
    expect_explained(turned, {"--sequence-first"}, given(turned, 2, 0));
    expect_explained({weights, "u.npy"}, {}, given({weights, "u.npy"}));
  }
}

TEST_F(Explain, FromScratchOfBothWidths) {
  const Tensor mask = save_input("m.npy", {5, 7}, 8);
  for (const HeadWidth width : {HeadWidth::kSplit, HeadWidth::kFull}) {
    save_scratch("s.safetensors", width);
    const Files files = {"s.safetensors", "q.npy", "k.npy", "v.npy"};
    Given given = this->given(files);
    expect_explained(files, {}, given);
    given.mask = [&](int64_t, int64_t i, int64_t j) {
      return static_cast<double>(-1e5F * mask.data_as<float>()[i * 7 + j]);
    };
    expect_explained(files, {"--scratch-mask", "m.npy"}, given);
  }
}

TEST_F(Explain, AMaskThatHidesSoftly) {
  save_scratch("s.safetensors", HeadWidth::kFull);
  std::vector<int> hides(35);
  for (size_t n = 0; n < 35; ++n) hides[n] = n % 4 == 1;
  Tensor mask(DType::kFloat32, {5, 7});
  for (size_t n = 0; n < 35; ++n) mask.data_as<float>()[n] = static_cast<float>(hides[n]);
  save_npy(path("m.npy"), mask);
  const Files files = {"s.safetensors", "q.npy", "k.npy"};
  Given given = this->given(files);
  given.mask = [&](int64_t, int64_t i, int64_t j) {
    return hides[static_cast<size_t>(i * 7 + j)] ? -1e5 : 0;
  };
  expect_explained(files, {"--scratch-mask", "m.npy"}, given);
}

TEST_F(Explain, NoKeysAtAll) {
  save_mha("w.safetensors", {});
  save_input("none.npy", {2, 0, 8});
  const Files files = {"w.safetensors", "q.npy", "none.npy"};
  expect_explained(files, {}, given(files));
}

// More than the page takes: its part is the start, or the end of a triangle that is aligned there.
TEST_F(Explain, APartOfALongSequence) {
  save_mha("w.safetensors", {.embed_dim = 16, .num_heads = 4});
  save_input("long.npy", {1, 600, 16}, 1);
  const Files files = {"w.safetensors", "long.npy"};
  Given given = this->given(files, 4);
  given.mask = [](int64_t, int64_t i, int64_t j) { return j <= i ? 0 : -kInf; };
  for (const bool from_end : {false, true}) {
    std::vector<std::string> flags = {"--causal"};
    if (from_end) flags.insert(flags.end(), {"--causal-align", "bottom-right"});
    expect_explained(files, flags, given);
    const Page page = read_page(text("r.html"));
    for (const char* what : {"queries", "keys"}) {
      const auto first = page.meta[what]["first"].get<int64_t>();
      const auto count = page.meta[what]["count"].get<int64_t>();
      EXPECT_LT(count, 600);
      EXPECT_EQ(first, from_end ? 600 - count : 0);
    }
    EXPECT_LT(text("r.html").size(), 7'000'000U);
  }
}

TEST_F(Explain, WhatThePageDoesNotHoldIsAccountedFor) {
  save_mha("w.safetensors", {.embed_dim = 16, .num_heads = 4});
  save_input("long.npy", {1, 300, 16}, 1);
  const Files files = {"w.safetensors", "long.npy"};
  expect_explained(files, {}, given(files, 4));
  const Page page = read_page(text("r.html"));
  const Numbers weights = expected_steps(given(files, 4)).at("weights");
  const PageMatrix& left_out = page.matrices.at("left_out");
  const auto keys = page.meta["keys"]["count"].get<size_t>();
  for (size_t n = 0; n < left_out.numbers.size(); ++n) {
    const auto queries = static_cast<size_t>(left_out.shape[1]);
    const size_t row = n / queries * 300 + n % queries;
    Bounded sum;
    for (size_t j = keys; j < 300; ++j) sum = sum + weights.numbers[row * 300 + j];
    ASSERT_TRUE(within(left_out.numbers[n], sum)) << n;
  }
}

TEST_F(Explain, APageAppearsWholeOrNotAtAll) {
  save_mha("w.safetensors", {});
  const std::vector<std::string> command = {"explain", "--weights", "w.safetensors", "--query",
                                            "q.npy",   "--report",  "r.html"};
  expect_error(command, 4, "r.html", {.max_file_bytes = 4096});
  EXPECT_FALSE(exists("r.html"));
  EXPECT_EQ(polyhead(command).code, 0);
  EXPECT_EQ(files().size(), 5U);  // and nothing beside it
}

TEST_F(Explain, TooLargeForAPageIsSaidBeforeTheComputation) {
  constexpr int64_t kWide = 600'000;
  save_mha("w.safetensors", {.embed_dim = 1, .num_heads = 1, .kdim = kWide});
  save_input("q1.npy", {2, 1});
  save_input("wide.npy", {1, kWide});
  save_input("v1.npy", {1, 1});
  const std::vector<std::string> command = {"explain", "--weights", "w.safetensors", "--query",
                                            "q1.npy",  "--key",     "wide.npy",      "--value",
                                            "v1.npy",  "--report",  "r.html"};
  expect_error(command, 3, "numbers; a page holds at most 524288");
  EXPECT_FALSE(exists("r.html"));
}

TEST_F(Explain, NoQueriesIsAPageThatSaysSo) {
  save_mha("w.safetensors", {});
  save_input("none.npy", {2, 0, 8});
  EXPECT_EQ(polyhead({"explain", "--weights", "w.safetensors", "--query", "none.npy", "--report",
                      "r.html"})
                .code,
            0);
  EXPECT_TRUE(read_page(text("r.html")).meta["steps"].empty());
}

}  // namespace
}  // namespace polyhead::cli
