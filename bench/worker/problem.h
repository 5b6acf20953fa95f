// What the worker times: inputs out of files, one call, outputs into files.
#pragma once

#include <cstdint>
#include <istream>
#include <map>
#include <memory>
#include <string>

namespace polyhead::bench {

class Problem {
 public:
  Problem() = default;
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;
  virtual ~Problem() = default;

  virtual void run() = 0;
  // PREFIX.out.f32, PREFIX.weights.f32 if there are any, PREFIX.d_NAME.f32 of gradients.
  virtual void write(const std::string& prefix) const = 0;
};

// name -> value, as they come down the pipe: "batch=1 q_len=512 ..."
class Words {
 public:
  explicit Words(std::istream& words);
  const std::string& text(const std::string& name) const;  // throws if it is not there
  int64_t number(const std::string& name) const;

 private:
  std::map<std::string, std::string> values_;
};

// batch heads q_len kv_len head_dim layout=BHLD|BLHD mask=none|causal folder
std::unique_ptr<Problem> make_attention(const Words& words);
// batch q_len kv_len embed_dim num_heads kdim vdim weights=none|average|per_head
// mask=none|causal|padding|float|bool folder; inputs=self: query is key and value, too; memory: key
// is value, too; separate
std::unique_ptr<Problem> make_module(const Words& words);
// batch heads kv_heads kv_len head_dim caches folder: one query over each cache in turn
std::unique_ptr<Problem> make_decode(const Words& words);
// They take the words of attention and module, and find the gradients of the outputs in the folder,
// too.
std::unique_ptr<Problem> make_train_attention(const Words& words);
std::unique_ptr<Problem> make_train_module(const Words& words);
// A module's words; what it costs to pack the module's weights: one line of JSON.
std::string time_packing(const Words& words);

}  // namespace polyhead::bench
