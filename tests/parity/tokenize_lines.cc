// tokenize_lines MODEL_FOLDER: for each line of stdin, the ids of its tokens, separated by blanks.
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "demo/word_piece.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize_lines MODEL_FOLDER < lines\n");
    return 2;
  }
  try {
    const auto tokenizer = polyhead::cli::WordPiece::load(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      const char* gap = "";
      for (const polyhead::cli::Token& token : tokenizer.encode(line)) {
        std::printf("%s%d", gap, token.id);
        gap = " ";
      }
      std::printf("\n");
    }
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "tokenize_lines: %s\n", problem.what());
    return 3;
  }
  return 0;
}
