#include "demo/word_piece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>

#include <polyhead/error.h>

namespace polyhead::cli {
namespace {

using testing::ElementsAre;

const std::string kModel = std::string(POLYHEAD_TEST_DATA) + "/small_model";

std::vector<std::string> pieces(std::string_view text) {
  static const WordPiece tokenizer = WordPiece::load(kModel);
  std::vector<std::string> out;
  for (const Token& token : tokenizer.encode(text)) out.push_back(token.text);
  return out;
}

std::string normalized(std::string_view text, const NormalizerOptions& options = {}) {
  return encode_utf8(normalize(decode_utf8(text), options));
}

TEST(Normalize, CleansFoldsAndLowers) {
  EXPECT_EQ(normalized("H\u00c9LLO\tW\u00f6rld\u00a0\u2028x"), "hello world  x");
  EXPECT_EQ(normalized(std::string_view("a\0b\u200b\ufeff\u00adc\x7f", 12)), "abc");
  EXPECT_EQ(normalized("\u4e2d\u6587a"), " \u4e2d  \u6587 a");
  EXPECT_EQ(normalized("\u0130\u1e9e\u03a3"), "i\u00df\u03c3");
}

TEST(Normalize, EachOptionCounts) {
  EXPECT_EQ(normalized("\u00c9\t\u4e2d", {false, false, false, false}), "\u00c9\t\u4e2d");
  EXPECT_EQ(normalized("\u00c9", {.strip_accents = false}), "\u00e9");
  EXPECT_EQ(normalized("\u00c9", {.lowercase = false}), "E");
  EXPECT_EQ(normalized("\u0130", {.strip_accents = false}), "i\u0307");
}

TEST(Normalize, IllFormedBytesVanish) {
  EXPECT_EQ(normalized("a\xff\xc0\x80z\xed\xa0\x80\xf4\x90\x80\x80"), "az");
  EXPECT_EQ(normalized("\xe4\xb8"), "");
}

TEST(SplitWords, PunctuationStandsAlone) {
  const auto words = split_words(U"don't  stop\u2014now!\u00a0$5");
  EXPECT_THAT(words, ElementsAre(U"don", U"'", U"t", U"stop", U"\u2014", U"now", U"!", U"$", U"5"));
}

TEST(WordPiece, LongestPiecesFirstAndWordsNumbered) {
  EXPECT_THAT(pieces("The CAT naps."), ElementsAre("[CLS]", "the", "cat", "naps", ".", "[SEP]"));
  EXPECT_THAT(pieces("cats"), ElementsAre("[CLS]", "cat", "##s", "[SEP]"));
  const auto tokens = WordPiece::load(kModel).encode("cats nap");
  EXPECT_EQ(tokens[1].word, tokens[2].word);
  EXPECT_NE(tokens[2].word, tokens[3].word);
}

TEST(WordPiece, UnknownAndOverlongWords) {
  EXPECT_THAT(pieces("\u0436"), ElementsAre("[CLS]", "[UNK]", "[SEP]"));
  EXPECT_THAT(pieces("cat\u0436"), ElementsAre("[CLS]", "[UNK]", "[SEP]"));
  EXPECT_EQ(pieces(std::string(100, 'q')).size(), 102U);
  EXPECT_THAT(pieces(std::string(101, 'q')), ElementsAre("[CLS]", "[UNK]", "[SEP]"));
}

TEST(WordPiece, SpecialTokensInTheText) {
  EXPECT_THAT(pieces("the[MASK]cat"), ElementsAre("[CLS]", "the", "[MASK]", "cat", "[SEP]"));
  EXPECT_THAT(pieces("[mask]"), ElementsAre("[CLS]", "[", "m", "##a", "##s", "##k", "]", "[SEP]"));
}

TEST(WordPiece, NothingGivesTheTwoEnds) {
  EXPECT_THAT(pieces(""), ElementsAre("[CLS]", "[SEP]"));
  EXPECT_THAT(pieces(" \n\t"), ElementsAre("[CLS]", "[SEP]"));
}

class BadTokenizer : public testing::Test {
 protected:
  void write(const std::string& text) const { std::ofstream(folder_ + "/tokenizer.json") << text; }

  const std::string folder_ = testing::TempDir() + "bad_tokenizer";
  void SetUp() override { std::filesystem::create_directories(folder_); }
};

TEST_F(BadTokenizer, SaysWhatIsWrong) {
  const auto fails_with = [&](const std::string& text, const std::string& part) {
    write(text);
    try {
      WordPiece::load(folder_);
      ADD_FAILURE() << "accepted " << text;
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(part));
      EXPECT_THAT(error.what(), testing::HasSubstr("tokenizer.json"));
    }
  };
  fails_with("{", "not JSON at byte 2");
  fails_with("{}", "model is missing");
  fails_with(R"({"model": {"type": "BPE"}})", "must be WordPiece");
  fails_with(R"({"model": {"type": "WordPiece"}, "pre_tokenizer": {"type": "X"}})",
             "must be BertPreTokenizer");
  EXPECT_THROW(WordPiece::load(folder_ + "/nowhere"), IoError);
}

}  // namespace
}  // namespace polyhead::cli
