#include "demo/word_piece.h"

#include <algorithm>

#include <polyhead/error.h>
#include "base/message.h"
#include "demo/model_json.h"

namespace polyhead::cli {
namespace {

using nlohmann::json;

void require_type(const json& part, const std::string& path, const char* name, const char* type) {
  const std::string found = json_field_or<std::string>(part, path, "type", "none");
  if (found != type) {
    throw Unsupported(message(path, ": ", name, " is ", found, "; must be ", type));
  }
}

NormalizerOptions normalizer_options(const json& part, const std::string& path) {
  require_type(part, path, "normalizer", "BertNormalizer");
  NormalizerOptions options;
  options.clean_text = json_field<bool>(part, path, "clean_text");
  options.handle_chinese_chars = json_field<bool>(part, path, "handle_chinese_chars");
  options.lowercase = json_field<bool>(part, path, "lowercase");
  const json accents = json_field_or<json>(part, path, "strip_accents", {});
  options.strip_accents = accents.is_boolean() ? accents.get<bool>() : options.lowercase;
  return options;
}

// Tokens that the text may name as they stand, such as [MASK].
std::vector<std::string> special_tokens(const json& list, const std::string& path) {
  std::vector<std::string> names;
  for (const json& token : list) {
    const auto name = json_field<std::string>(token, path, "content");
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
      if (json_field_or<bool>(token, path, flag, false)) {
        throw Unsupported(message(path, ": added token ", name, " has ", flag, "; must be plain"));
      }
    }
    if (!name.empty()) names.push_back(name);
  }
  return names;
}

}  // namespace

WordPiece WordPiece::load(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  const json file = load_model_json(path);
  const json model = json_field<json>(file, path, "model");
  require_type(model, path, "model", "WordPiece");
  require_type(json_field<json>(file, path, "pre_tokenizer"), path, "pre_tokenizer",
               "BertPreTokenizer");
  WordPiece out;
  out.normalizer_ = normalizer_options(json_field<json>(file, path, "normalizer"), path);
  out.specials_ =
      special_tokens(json_field_or<json>(file, path, "added_tokens", json::array()), path);
  out.unknown_ = json_field<std::string>(model, path, "unk_token");
  out.prefix_ = json_field<std::string>(model, path, "continuing_subword_prefix");
  out.max_word_chars_ = json_field<size_t>(model, path, "max_input_chars_per_word");
  out.ids_ = json_field<std::unordered_map<std::string, int32_t>>(model, path, "vocab");
  for (const std::string& name : {out.unknown_, std::string("[CLS]"), std::string("[SEP]")}) {
    if (!out.ids_.contains(name)) throw IoError(message(path, ": vocab has no ", name));
  }
  return out;
}

std::vector<Token> WordPiece::encode(std::string_view text) const {
  std::vector<Token> tokens = {special("[CLS]", 0)};
  while (!text.empty()) {
    size_t at = text.size();
    const std::string* found = nullptr;  // the first special token, the longest of those
    for (const std::string& name : specials_) {
      const size_t place = text.find(name);
      if (place < at || (place == at && found != nullptr && name.size() > found->size())) {
        at = place;
        found = &name;
      }
    }
    add_text(text.substr(0, at), &tokens);
    if (found != nullptr) tokens.push_back(special(*found, tokens.back().word + 1));
    text.remove_prefix(found != nullptr ? at + found->size() : at);
  }
  tokens.push_back(special("[SEP]", tokens.back().word + 1));
  return tokens;
}

void WordPiece::add_text(std::string_view text, std::vector<Token>* tokens) const {
  for (const std::u32string& word : split_words(normalize(decode_utf8(text), normalizer_))) {
    add_word(word, tokens);
  }
}

// The longest piece of the vocabulary that the rest of the word begins with, again and again; a
// word with a rest that no piece begins is unknown as a whole.
void WordPiece::add_word(std::u32string_view word, std::vector<Token>* tokens) const {
  const int32_t index = tokens->back().word + 1;
  const size_t before = tokens->size();
  bool known = word.size() <= max_word_chars_;
  for (size_t begin = 0; known && begin < word.size();) {
    size_t end = word.size();
    for (; end > begin; --end) {
      const std::string piece = encode_utf8(word.substr(begin, end - begin));
      if (is_piece(begin > 0 ? prefix_ + piece : piece, index, tokens)) break;
    }
    known = end > begin;
    begin = end;
  }
  if (!known) {
    tokens->resize(before);
    tokens->push_back(special(unknown_, index));
  }
}

bool WordPiece::is_piece(const std::string& piece, int32_t word, std::vector<Token>* tokens) const {
  const auto at = ids_.find(piece);
  if (at == ids_.end()) return false;
  tokens->push_back({at->second, piece, word});
  return true;
}

Token WordPiece::special(const std::string& name, int32_t word) const {
  const auto at = ids_.find(name);
  return {at != ids_.end() ? at->second : ids_.at(unknown_), name, word};
}

}  // namespace polyhead::cli
