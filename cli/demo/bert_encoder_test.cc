#include "demo/bert_encoder.h"

#include <gtest/gtest.h>
#include <cmath>
#include <cstring>

#include "demo/head_roles.h"
#include "demo/proof.h"
#include "demo/tables.h"
#include "demo/word_piece.h"
#include "report/head_stats.h"

namespace polyhead::cli {
namespace {

const std::string kModel = std::string(POLYHEAD_TEST_DATA) + "/small_model";

const BertEncoder& encoder() {
  static const BertEncoder loaded = BertEncoder::load(kModel);
  return loaded;
}

std::vector<Token> tokens_of(const std::string& text) {
  static const WordPiece tokenizer = WordPiece::load(kModel);
  return tokenizer.encode(text);
}

TokenBatch batch_of(const std::vector<std::string>& texts) {
  std::vector<std::vector<int32_t>> ids;
  for (const std::string& text : texts) {
    ids.emplace_back();
    for (const Token& token : tokens_of(text)) ids.back().push_back(token.id);
  }
  return TokenBatch(std::move(ids));
}

TEST(BertEncoder, ASentenceIsTheSameAloneAndPaddedInABatch) {
  const std::string text = "A kitten naps on the couch.";
  const TokenBatch alone = batch_of({text});
  const TokenBatch batch = batch_of({"The rain flooded the streets of the city again.", text});
  ASSERT_LT(alone.len, batch.len);
  const Tensor want = std::move(encoder().run(alone).hidden_states.back());
  const Tensor got = std::move(encoder().run(batch).hidden_states.back());
  const size_t bytes = static_cast<size_t>(want.numel()) * sizeof(float);
  EXPECT_EQ(std::memcmp(want.data_as<float>(),
                        got.data_as<float>() + batch.len * encoder().config().embed_dim, bytes),
            0);
}

TEST(BertEncoder, WordsOfOneMeaningAreCloserThanOneWordOfTwo) {
  const TokenBatch batch =
      batch_of({"The bank raised its interest rates.", "Borrowing money became more expensive.",
                "We had a picnic on the bank of the river."});
  const Tensor vectors = sentence_vectors(batch, encoder().run(batch).hidden_states.back());
  const auto cosine = [&](int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t i = 0; i < vectors.size(1); ++i) {
      sum += vectors.data_as<float>()[a * vectors.size(1) + i] *
             vectors.data_as<float>()[b * vectors.size(1) + i];
    }
    return sum;
  };
  EXPECT_GT(cosine(0, 1), cosine(0, 2));
  EXPECT_NEAR(cosine(0, 0), 1, 1e-5);
  EXPECT_NE(similarity_text(vectors, {}).find("1 and 2 are closest"), std::string::npos);
}

TEST(BertEncoder, WeightsOfTokensSumToOneAndPaddingGetsNone) {
  const TokenBatch batch = batch_of({"cat", "the cat and the dog"});
  const Encoding encoding = encoder().run(batch);
  ASSERT_EQ(static_cast<int64_t>(encoding.weights.size()), encoder().config().num_layers);
  const ConstTensorView head = encoding.weights[0].view().select(0, 0).select(0, 1);
  double mass = 0;
  for (int64_t key = 0; key < 3; ++key) mass += weight_at(head, 1, key);
  EXPECT_NEAR(mass, 1, 1e-5);
  for (int64_t key = 3; key < batch.len; ++key) EXPECT_EQ(weight_at(head, 1, key), 0);
}

TEST(BertEncoder, RefusesWhatTheModelDoesNotHave) {
  const auto refuses = [](const std::vector<int32_t>& ids) {
    const std::vector<std::vector<int32_t>> sentences = {ids};
    EXPECT_THROW(encoder().run(TokenBatch(sentences)), InvalidArgument);
  };
  refuses({1 << 20});
  refuses({-1});
  refuses(std::vector<int32_t>(static_cast<size_t>(encoder().config().max_len) + 1, 5));
  EXPECT_THROW(BertEncoder::load(kModel + "/nowhere"), IoError);
}

TEST(HeadRoles, NameWhatAHeadDoes) {
  const std::vector<Token> tokens = tokens_of("cats , cat");  // [CLS] cat ##s , cat [SEP]
  ASSERT_EQ(tokens.size(), 6U);
  Tensor weights(DType::kFloat32, {1, 3, 6, 6});
  auto* w = weights.data_as<float>();
  for (int64_t i = 0; i < 6; ++i) {
    w[i * 6 + std::max<int64_t>(i - 1, 0)] = 1;  // head 0: the previous token
    w[36 + i * 6] = 1;                           // head 1: [CLS]
    for (int64_t j = 0; j < 6; ++j) w[72 + i * 6 + j] = 1.0F / 6;
  }
  const auto heads = summarise_heads(weights, {tokens});
  EXPECT_EQ(heads[0].words.rfind("previous token 83 %", 0), 0U) << heads[0].words;
  EXPECT_EQ(heads[1].words.rfind("[CLS] 100 %", 0), 0U) << heads[1].words;
  EXPECT_EQ(heads[2].words, "all tokens nearly alike");
  // ##s and the second "cat" are the same word to the first, and it to them: 4 of 36 pairs.
  EXPECT_NEAR(heads[2].mass[static_cast<size_t>(Role::kSameWord)], 4.0 / 36, 1e-6);
  EXPECT_NEAR(heads[2].mass[static_cast<size_t>(Role::kPunctuation)], 6.0 / 36, 1e-6);
  EXPECT_NE(clearest_heads_text({heads}).find("previous token  layer 1, head 1, with 83 %"),
            std::string::npos);
  // Of a kind that no head looks at there is no clearest head.
  const std::string of_cls = clearest_heads_text({{heads[1]}});
  EXPECT_NE(of_cls.find("[CLS]"), std::string::npos);
  EXPECT_EQ(of_cls.find("punctuation"), std::string::npos) << of_cls;
}

TEST(Proof, HoldsForTheSmallModel) {
  const TokenBatch batch = batch_of({"The cat is sleeping.", "A storm."});
  const Encoding encoding = encoder().run(batch);
  const std::string isa_before = isa();
  const int threads_before = num_threads();
  EXPECT_TRUE(prove_same_bits(encoder(), batch).holds);
  EXPECT_TRUE(prove_accuracy(encoder(), batch, encoding).holds);
  EXPECT_TRUE(prove_empty_row(encoder(), encoding).holds);
  EXPECT_EQ(isa(), isa_before);
  EXPECT_EQ(num_threads(), threads_before);
}

TEST(Proof, NoticesANan) {
  const TokenBatch batch = batch_of({"The cat is sleeping."});
  Encoding encoding = encoder().run(batch);
  encoding.hidden_states[0].data_as<float>()[0] = std::nanf("");
  EXPECT_FALSE(prove_empty_row(encoder(), encoding).holds);
}

}  // namespace
}  // namespace polyhead::cli
