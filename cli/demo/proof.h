// The lines that end the demo: claims measured then and there, on the sentences just shown.
#pragma once

#include <string>
#include <vector>

#include "demo/bert_encoder.h"

namespace polyhead::cli {

struct ProofLine {
  bool holds = false;
  std::string text;
};

// Same sha256 of hidden states and weights on 1 and 2 threads and on each ISA with fused
// multiply-add. Puts threads and ISA back.
ProofLine prove_same_bits(const BertEncoder& encoder, const TokenBatch& batch);

// Every layer's attention on its real input against the double reference: the largest share of the
// error budget, over outputs and weights.
ProofLine prove_accuracy(const BertEncoder& encoder, const TokenBatch& batch,
                         const Encoding& encoding);

// A sentence of which every key is masked, beside one that is not.
ProofLine prove_empty_row(const BertEncoder& encoder, const Encoding& encoding);

// GFLOP/s of attention with this model's heads, and the share of the FMA peak measured beside it.
ProofLine measure_speed(const BertEncoder& encoder);

}  // namespace polyhead::cli
