// What the trained heads do: their induction scores, and the page that shows their weights.
#pragma once

#include <string>
#include <vector>

#include "task.h"

namespace train {

// The weights of each layer for one batch.
struct Heads {
  Batch batch;
  std::vector<polyhead::Tensor> weights;  // of each layer [batch, num_heads, length, length]
};

// How far a head is an induction head: the mean weight from a token of the second copy to the
// position after the token's first occurrence. scores[layer][head], each in [0, 1].
std::vector<std::vector<double>> induction_scores(const Heads& heads);

// Some rows of the batch, all heads. `made_by` stands at the page's foot.
void write_page(const std::string& path, const Heads& heads, const std::string& made_by);

}  // namespace train
