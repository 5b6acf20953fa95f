// Modules in safetensors files: reading, and writing.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/multihead_attention.h>
#include "module/attention_parameters.h"

namespace polyhead {

using LoadedTensors = std::vector<std::pair<std::string, Tensor>>;

struct MhaFile {
  MultiheadAttention::Config config;
  LoadedTensors tensors;  // by the names of mha_load_targets
};
struct ScratchFile {
  int64_t embed_size = 0, num_heads = 0;
  HeadWidth width = HeadWidth::kSplit;
  DType dtype = DType::kFloat32;
  LoadedTensors tensors;  // by the names of scratch_state_dict
};

// Read everything, or throw: InvalidArgument names the file, each missing or extra tensor and each
// wrong shape; IoError if the file itself is bad.
MhaFile read_mha(const std::string& path, const LoadOptions& options);
ScratchFile read_scratch(const std::string& path, const LoadOptions& options);

void fill_parameters(const ParameterViews& targets, const LoadedTensors& tensors,
                     const char* function);

// `metadata`: what the shapes do not tell.
void save_module(const std::string& path, const std::string& prefix,
                 const std::vector<std::pair<std::string, ConstTensorView>>& state_dict,
                 const std::map<std::string, std::string>& metadata);

}  // namespace polyhead
