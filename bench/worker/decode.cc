// A decoder's step over a KvCache: the newest token is appended, and attends to all.
#include <algorithm>
#include <vector>

#include <polyhead/kv_cache.h>
#include "bench/worker/files.h"
#include "bench/worker/problem.h"

namespace polyhead::bench {
namespace {

class DecodeProblem final : public Problem {
 public:
  explicit DecodeProblem(const Words& words) {
    const std::string folder = words.text("folder");
    const int64_t batch = words.number("batch"), kv_heads = words.number("kv_heads"),
                  head_dim = words.number("head_dim");
    kv_len_ = words.number("kv_len");
    const int64_t keys[] = {batch, kv_heads, kv_len_, head_dim};
    const int64_t rows[] = {batch, words.number("heads"), 1, head_dim};
    query_ = read_tensor(folder + "/query.f32", DType::kFloat32, rows);
    key_ = read_tensor(folder + "/key.f32", DType::kFloat32, keys);
    value_ = read_tensor(folder + "/value.f32", DType::kFloat32, keys);
    out_ = Tensor(DType::kFloat32, query_.shape());
    KvCache::Config config{.batch = batch, .num_kv_heads = kv_heads, .head_dim = head_dim};
    config.num_pages = batch * ((kv_len_ + config.page_len - 1) / config.page_len);
    for (int64_t n = words.number("caches"); n > 0; --n) {
      caches_.emplace_back(config);
      caches_.back().append(key_, value_);
    }
  }

  void run() override {
    KvCache& cache = caches_[turn_++ % caches_.size()];
    for (int64_t b = 0; b < query_.size(0); ++b) cache.truncate(b, kv_len_ - 1);
    cache.append(key_.view().narrow(2, kv_len_ - 1, 1), value_.view().narrow(2, kv_len_ - 1, 1));
    attention_forward(query_, cache, {.masks = {Mask::causal()}}, {.out = out_});
  }

  void write(const std::string& prefix) const override { write_tensor(prefix + ".out.f32", out_); }

 private:
  int64_t kv_len_ = 0;
  Tensor query_, key_, value_, out_;
  std::vector<KvCache> caches_;
  size_t turn_ = 0;
};

}  // namespace

std::unique_ptr<Problem> make_decode(const Words& words) {
  return std::make_unique<DecodeProblem>(words);
}

}  // namespace polyhead::bench
