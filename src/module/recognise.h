// Which attention modules a safetensors file holds, told from names, shapes and dtypes alone.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <polyhead/io.h>

namespace polyhead {

enum class ModuleLayout { kMha, kScratchSplit, kScratchFull };

struct RecognisedModule {
  ModuleLayout layout = ModuleLayout::kMha;
  std::string prefix;                // "encoder.layers.0.self_attn."; empty: at the top
  std::string map;                   // "": the class's own names; "bert", "vit" or "llama"
  std::vector<std::string> tensors;  // their names in the file, the class's order
  int64_t embed_dim = 0, kdim = 0, vdim = 0;
  int64_t width = 0, kv_width = 0;  // rows of the projections of query; of key and of value
  int64_t norm_dim = 0;             // size of q_norm.weight; 0: there is none
  int64_t num_heads = 0;            // of __metadata__, or of the full layout's shapes; 0: unknown
  std::string dtype;                // as in the file: "F32", "BF16", ...
  bool packed = false, has_bias = false, has_bias_kv = false;
  std::vector<std::string> problems;  // why it would not load; empty: it would
};

// A checkpoint of polyhead::nn holds the optimiser's moments under adamw.mean.NAME and
// adamw.square.NAME, in the shapes of the modules: the file's entries without those.
std::vector<SafetensorsEntry> module_entries(const SafetensorsFile& file);

// Why the module's shapes do not allow so many heads; empty: they do.
std::string heads_problem(const RecognisedModule& module, int64_t num_heads);
// With so many heads, which the shapes allow.
int64_t head_dim_of(const RecognisedModule& module, int64_t num_heads);
int64_t num_kv_heads_of(const RecognisedModule& module, int64_t num_heads);

// In the order of the file's names. The llama map covers checkpoints without biases.
std::vector<RecognisedModule> recognise_modules(const SafetensorsFile& file);
std::vector<RecognisedModule> recognise_modules(const std::vector<SafetensorsEntry>& entries,
                                                const std::map<std::string, std::string>& metadata);

// The first twelve: a file of another model can have thousands.
std::string listed(const std::vector<std::string>& items, const char* separator);
// `recognised in it: "encoder." (nn.MultiheadAttention), ...`
std::string recognised_text(const SafetensorsFile& file);
// Of a prefix that leads to no module: `prefix: got ...; did you mean ...`, or what there is.
std::string no_such_prefix(const SafetensorsFile& file, const std::string& prefix);

// The number greater than 0 that the text is, or 0.
int64_t whole_number(const std::string& text);

// "nn.MultiheadAttention", "from scratch", "from scratch, full head width".
const char* layout_name(ModuleLayout layout);

}  // namespace polyhead
