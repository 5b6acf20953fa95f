// `polyhead demo`: a real model's attention, computed here, shown and proven.
#pragma once

#include <string>
#include <vector>

namespace polyhead::cli {

struct DemoArguments {
  std::string model;  // folder with config.json, tokenizer.json, model.safetensors
  std::string report = "attention.html";    // the page of heads; empty: none
  std::vector<std::string> sentences = {};  // empty: sentences of our own
};

// Prints to stdout, progress to stderr if that is a terminal; returns the exit code (0, or 1 if a
// proof line failed). Throws the library's exceptions on a bad model, which main() turns into one
// line. Downloads nothing: tools/fetch_minilm.py does.
int run_demo(const DemoArguments& arguments);

}  // namespace polyhead::cli
