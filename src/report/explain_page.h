// The page behind `polyhead explain --report`: one computation of multi-head attention, step by
// step, for a query and a head that the reader chooses. One HTML file that needs no network.
//
// The numbers are stored as they are, in double, and the page looks them up. Names, paths and
// titles are data: markup, control characters and right-to-left marks in them show as text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace polyhead {

struct CodeLine {
  std::string file, code;
};

// Who computes a step: a line of PyTorch (may be empty), and of our double reference.
struct ExplainStep {
  std::string python;
  std::vector<CodeLine> cpp;
};

struct ExplainMatrix {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<double> numbers;  // row-major
};

// Positions [first, first + count) out of `of`: the part that the page holds.
struct Stretch {
  int64_t first = 0, count = 0, of = 0;
  bool holds(int64_t position) const { return position >= first && position < first + count; }
};

// q, k and h below are queries.count, keys.count and heads.count; x is extra_columns.size().
struct ExplainPage {
  std::string title, subtitle;
  std::vector<std::string> facts = {};  // lines at the foot of the page: how this was made
  Stretch queries = {}, keys = {}, heads = {};
  int64_t head_dim = 0;
  std::vector<std::string> extra_columns = {};  // what is appended to keys and values: "bias_k"
  std::vector<std::string> masks = {};          // each in words; empty: none given
  bool in_bias = false, out_bias = false;       // whether the projections have one
  bool soft_masks = false;  // the from-scratch module's: they add a large negative number
  bool nan_rows = false;    // what a query that sees no key gives: NaN, or else zero
  std::string fast_path;    // "avx512, float32", and
  double difference = 0;    // how far its output is from the last step's
  std::vector<ExplainStep> steps = {};  // the nine, in order; none: there is nothing to compute
  // By name. Inputs: query [q, embed_dim], key [k, kdim], value [k, vdim] (absent: the key).
  // Projected: q [q, h * head_dim], k and v [k, h * head_dim]; extra_k, extra_v [h, x, head_dim].
  // Per pair: scores (before scaling), scaled, mask (-inf: hidden), masked, weights, all
  // [h, q, k + x]; mask may be [1, q, k + x], mask and masked are absent without masks.
  // seen [h, q]: how many keys the query sees; absent without masks. left_out [h, q]: the weight
  // of keys that are not on the page; absent if all are.
  // heads [q, all heads * head_dim]; out and fast (the fast path's) [q, embed_dim].
  // Parameters where they fit: w_q, w_k, w_v, w_o [out, in] and b_q, b_k, b_v, b_o [out].
  std::vector<ExplainMatrix> matrices = {};
};

// The file appears whole or not at all. Throws InvalidArgument if a matrix's numbers do not fill
// its shape, IoError if the file cannot be written.
void write_explain_page(const std::string& path, const ExplainPage& page);
std::string explain_html(const ExplainPage& page);

}  // namespace polyhead
