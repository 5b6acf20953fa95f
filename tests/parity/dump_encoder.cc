// dump_encoder MODEL_FOLDER OUT_FOLDER: each line of stdin is a sentence as token ids; writes every
// layer's hidden states and weights, for test_encoder.py.
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "demo/bert_encoder.h"

namespace {

std::vector<std::vector<int32_t>> read_ids(std::istream& lines) {
  std::vector<std::vector<int32_t>> sentences;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::vector<int32_t>& ids = sentences.emplace_back();
    for (int32_t id = 0; numbers >> id;) ids.push_back(id);
  }
  return sentences;
}

void save_all(const std::string& prefix, const std::vector<polyhead::Tensor>& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    polyhead::save_npy(prefix + std::to_string(i) + ".npy", tensors[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    const auto encoder = polyhead::cli::BertEncoder::load(argv[1]);
    const auto encoding = encoder.run(polyhead::cli::TokenBatch(read_ids(std::cin)));
    save_all(std::string(argv[2]) + "/hidden", encoding.hidden_states);  // [batch, len, embed_dim]
    save_all(std::string(argv[2]) + "/weights", encoding.weights);  // [batch, num_heads, len, len]
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "dump_encoder: %s\n", problem.what());
    return 1;
  }
  return 0;
}
