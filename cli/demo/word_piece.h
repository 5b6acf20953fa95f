// BERT's tokenizer: text -> the ids of word pieces, as the model was trained with.
//
//   WordPiece tokenizer = WordPiece::load("build/models/...");
//   for (const Token& token : tokenizer.encode("Unbelievable!")) ...   // [CLS] un ##bel ... [SEP]
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "demo/bert_text.h"

namespace polyhead::cli {

struct Token {
  int32_t id = 0;
  std::string text;  // the piece as the vocabulary has it: "##able"
  int32_t word = 0;  // pieces of one word share it; [CLS] and [SEP] have their own
};

class WordPiece {
 public:
  // Reads tokenizer.json of the folder. Throws IoError if it is missing or damaged, Unsupported if
  // it describes another kind of tokenizer.
  static WordPiece load(const std::string& folder);

  // With [CLS] and [SEP]. Any bytes are accepted. Not cut to the model's length.
  std::vector<Token> encode(std::string_view text) const;

 private:
  void add_text(std::string_view text, std::vector<Token>* tokens) const;
  void add_word(std::u32string_view word, std::vector<Token>* tokens) const;
  bool is_piece(const std::string& piece, int32_t word, std::vector<Token>* tokens) const;
  Token special(const std::string& name, int32_t word) const;

  std::unordered_map<std::string, int32_t> ids_;
  std::vector<std::string> specials_;  // matched as they stand, before anything else
  std::string unknown_, prefix_;
  size_t max_word_chars_ = 0;
  NormalizerOptions normalizer_;
};

}  // namespace polyhead::cli
