#include "explain_expected.h"

#include <limits>

namespace polyhead::cli {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

size_t product(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

Numbers empty(std::vector<int64_t> shape) {
  const size_t count = product(shape);
  return {std::move(shape), std::vector<Bounded>(count)};
}

Bounded& at(Numbers& numbers, int64_t i, int64_t j) {
  return numbers.numbers[static_cast<size_t>(i * numbers.shape.back() + j)];
}
const Bounded& at(const Numbers& numbers, int64_t i, int64_t j) {
  return numbers.numbers[static_cast<size_t>(i * numbers.shape.back() + j)];
}

class Steps {
 public:
  explicit Steps(const Given& given) : given_(given) {}

  Expected run() {
    all_["query"] = given_.query;
    all_["key"] = given_.key;
    if (given_.other_value) all_["value"] = given_.value;
    add_parameters();
    all_["q"] = linear(given_.query, "q");
    all_["k"] = linear(given_.key, "k");
    all_["v"] = linear(given_.value, "v");
    add_extra();
    add_pairs();
    for (int64_t row = 0; row < heads() * queries(); ++row) add_row(row);
    all_["out"] = linear(all_["heads"], "o");
    return all_;
  }

 private:
  int64_t heads() const { return given_.num_heads; }
  int64_t queries() const { return given_.query.shape[0]; }
  int64_t keys() const { return given_.key.shape[0]; }
  int64_t width() const { return all_.at("q").shape[1]; }
  int64_t head_dim() const { return width() / heads(); }
  int64_t columns() const { return keys() + extra_; }

  // Packed: rows [part * E, (part + 1) * E).
  void add_parameters() {
    const std::map<std::string, std::vector<std::string>> names = {
        {"w_q", {"q_proj_weight", "q_linear.weight"}}, {"b_q", {"q_linear.bias"}},
        {"w_k", {"k_proj_weight", "k_linear.weight"}}, {"b_k", {"k_linear.bias"}},
        {"w_v", {"v_proj_weight", "v_linear.weight"}}, {"b_v", {"v_linear.bias"}},
        {"w_o", {"out_proj.weight", "fc_out.weight"}}, {"b_o", {"out_proj.bias", "fc_out.bias"}}};
    for (const auto& [ours, theirs] : names) {
      for (const std::string& name : theirs) {
        const auto found = given_.parameters.find(name);
        if (found != given_.parameters.end()) all_[ours] = found->second;
      }
    }
    add_packed("in_proj_weight", "w_");
    add_packed("in_proj_bias", "b_");
  }

  void add_packed(const std::string& name, const std::string& ours) {
    const auto found = given_.parameters.find(name);
    if (found == given_.parameters.end()) return;
    const std::vector<Bounded>& packed = found->second.numbers;
    const auto third = static_cast<std::ptrdiff_t>(packed.size() / 3);
    std::vector<int64_t> shape = found->second.shape;
    shape[0] /= 3;
    for (std::ptrdiff_t part = 0; part < 3; ++part) {
      const auto from = packed.begin() + part * third;
      all_[ours + "qkv"[part]] = {shape, {from, from + third}};
    }
  }

  Numbers linear(const Numbers& x, const std::string& letter) const {
    const Numbers& weight = all_.at("w_" + letter);
    const auto bias = all_.find("b_" + letter);
    Numbers y = empty({x.shape[0], weight.shape[0]});
    for (int64_t i = 0; i < y.shape[0]; ++i) {
      for (int64_t o = 0; o < y.shape[1]; ++o) {
        Bounded sum;
        if (bias != all_.end()) sum = bias->second.numbers[static_cast<size_t>(o)];
        for (int64_t e = 0; e < x.shape[1]; ++e) sum = sum + at(x, i, e) * at(weight, o, e);
        at(y, i, o) = sum;
      }
    }
    return y;
  }

  // bias_k and bias_v [1, 1, E], then the zeros: [heads, extra, head_dim].
  void add_extra() {
    const bool learned = given_.parameters.contains("bias_k");
    extra_ = learned + given_.zero_attn;
    if (extra_ == 0) return;
    for (const char* letter : {"k", "v"}) {
      Numbers extra = empty({heads(), extra_, head_dim()});
      for (int64_t h = 0; learned && h < heads(); ++h) {
        for (int64_t d = 0; d < head_dim(); ++d) {
          const Numbers& bias = given_.parameters.at(std::string("bias_") + letter);
          at(extra, h * extra_, d) = bias.numbers[static_cast<size_t>(h * head_dim() + d)];
        }
      }
      all_[std::string("extra_") + letter] = extra;
    }
  }

  void add_pairs() {
    for (const char* name : {"scores", "scaled", "mask", "masked", "weights"}) {
      all_[name] = empty({heads(), queries(), columns()});
    }
    all_["seen"] = empty({heads(), queries()});
    all_["heads"] = empty({queries(), width()});
    if (given_.mask) return;
    for (const char* name : {"mask", "masked", "seen"}) all_.erase(name);
  }

  // Element d of key or value j of head h.
  const Bounded& operand(const std::string& letter, int64_t h, int64_t j, int64_t d) const {
    if (j < keys()) return at(all_.at(letter), j, h * head_dim() + d);
    return at(all_.at("extra_" + letter), h * extra_ + j - keys(), d);
  }

  // Of head row / queries, query row % queries.
  void add_row(int64_t row) {
    const int64_t h = row / queries(), i = row % queries();
    const Bounded root = rounded(std::sqrt(static_cast<long double>(head_dim())), 0);
    std::vector<Bounded> masked;
    std::vector<bool> hidden;
    for (int64_t j = 0; j < columns(); ++j) {
      Bounded dot;
      for (int64_t d = 0; d < head_dim(); ++d) {
        dot = dot + at(all_["q"], i, h * head_dim() + d) * operand("k", h, j, d);
      }
      const Bounded scaled = dot / root;
      at(all_["scores"], row, j) = scaled * root;  // the same number, and what scaling back costs
      at(all_["scaled"], row, j) = scaled;
      const double mask = given_.mask && j < keys() ? given_.mask(h, i, j) : 0;
      hidden.push_back(mask == -kInf);
      masked.push_back(hidden.back() ? Bounded{-kInf, 0} : scaled + Bounded{mask, 0});
      if (!given_.mask) continue;
      at(all_["mask"], row, j) = {mask, 0};
      at(all_["masked"], row, j) = masked.back();
      at(all_["seen"], h, i).value += hidden.back() ? 0 : 1;
    }
    softmax(row, masked, hidden);
    for (int64_t d = 0; d < head_dim(); ++d) weighted_sum(row, d, hidden);
  }

  void softmax(int64_t row, const std::vector<Bounded>& masked, const std::vector<bool>& hidden) {
    Bounded largest{-kInf, 0}, sum;
    for (const Bounded& score : masked) {
      if (score.value > largest.value) largest = score;
    }
    empty_row_ = largest.value == -kInf;
    for (size_t j = 0; j < masked.size(); ++j) {
      if (!hidden[j]) sum = sum + exp(masked[j] - largest);
    }
    for (size_t j = 0; j < masked.size(); ++j) {
      const bool nan = empty_row_ && given_.nan_rows;
      const Bounded none{nan ? std::numeric_limits<double>::quiet_NaN() : 0.0, 0};
      at(all_["weights"], row, static_cast<int64_t>(j)) =
          hidden[j] ? none : exp(masked[j] - largest) / sum;
    }
  }

  void weighted_sum(int64_t row, int64_t d, const std::vector<bool>& hidden) {
    const int64_t h = row / queries(), i = row % queries();
    Bounded sum;
    for (int64_t j = 0; j < columns(); ++j) {
      if (hidden[static_cast<size_t>(j)]) continue;
      sum = sum + at(all_["weights"], row, j) * operand("v", h, j, d);
    }
    if (empty_row_ && given_.nan_rows && columns() > 0) {
      sum = {std::numeric_limits<double>::quiet_NaN(), 0};
    }
    at(all_["heads"], i, h * head_dim() + d) = sum;
  }

  const Given& given_;
  Expected all_;
  int64_t extra_ = 0;
  bool empty_row_ = false;
};

template <class T>
Numbers exact(const Tensor& rows) {
  Numbers numbers = empty({rows.shape().begin(), rows.shape().end()});
  for (size_t n = 0; n < numbers.numbers.size(); ++n) {
    numbers.numbers[n].value = static_cast<long double>(static_cast<const T*>(rows.data())[n]);
  }
  return numbers;
}

}  // namespace

Numbers numbers_of_tensor(const ConstTensorView& tensor) {
  const Tensor rows(tensor);  // row-major
  if (rows.dtype() == DType::kBool) return exact<bool>(rows);
  return rows.dtype() == DType::kFloat32 ? exact<float>(rows) : exact<double>(rows);
}

Expected expected_steps(const Given& given) { return Steps(given).run(); }

}  // namespace polyhead::cli
