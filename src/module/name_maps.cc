// Where well-known models keep what nn.MultiheadAttention calls q_proj_weight and so on. Biases of
// separate projections go by q_proj_bias, k_proj_bias, v_proj_bias: packed into in_proj_bias.
#include <string>

#include <polyhead/multihead_attention.h>

namespace polyhead::name_maps {
namespace {

// Adds "`from`.weight" and, if wanted, "`from`.bias"; `to` ends in '_' or '.'.
void add(NameMap& map, const std::string& from, const std::string& to, bool bias) {
  map[from + ".weight"] = to + "weight";
  if (bias) map[from + ".bias"] = to + "bias";
}

NameMap separate(const std::string& stem, const std::string& out) {
  NameMap map;
  add(map, stem + "query", "q_proj_", true);
  add(map, stem + "key", "k_proj_", true);
  add(map, stem + "value", "v_proj_", true);
  add(map, out, "out_proj.", true);
  return map;
}

}  // namespace

NameMap bert() { return separate("attention.self.", "attention.output.dense"); }

NameMap vit() { return separate("attention.attention.", "attention.output.dense"); }

NameMap llama() {
  NameMap map;
  add(map, "q_proj", "q_proj_", false);
  add(map, "k_proj", "k_proj_", false);
  add(map, "v_proj", "v_proj_", false);
  add(map, "o_proj", "out_proj.", false);
  return map;
}

}  // namespace polyhead::name_maps
