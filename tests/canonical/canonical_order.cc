// docs/canonical_order.md as a program: scalar loops over std::fma, nothing of the library.
//
//   canonical_order vectors.txt            checks the table
//   canonical_order vectors.txt --print    prints it with the digests computed here
//
// The numbers beside the functions are the sections of the page.
#include <cstdio>
#include <exception>

#include "backward.h"
#include "forward.h"
#include "heads.h"

namespace canonical {
namespace {

// 11
template <class T>
std::vector<T> run_linear(const Vector& v, const Inputs<T>& in) {
  std::vector<T> out;
  for (size_t n = 0; n < v.q_len * v.v_head_dim; ++n) {
    const T* x = in.query.data() + n / v.v_head_dim * v.head_dim;
    const T* weight = in.key.data() + n % v.v_head_dim * v.head_dim;
    T sum = 0;
    for (size_t k = 0; k < v.head_dim; ++k) sum = std::fma(x[k], weight[k], sum);
    out.push_back(sum + in.value[n % v.v_head_dim]);
  }
  return out;
}

// d_x [L, D] of d_y = out [L, Dv]
template <class T>
std::vector<T> linear_input_gradient(const Vector& v, const Inputs<T>& in,
                                     const std::vector<T>& d_y) {
  std::vector<T> d_x(v.q_len * v.head_dim);
  for (size_t i = 0; i < d_x.size(); ++i) {
    const size_t m = i / v.head_dim, k = i % v.head_dim;
    for (size_t n = 0; n < v.v_head_dim; ++n) {
      d_x[i] = std::fma(d_y[m * v.v_head_dim + n], in.key[n * v.head_dim + k], d_x[i]);
    }
  }
  return d_x;
}

// d_weight [Dv, D], then d_bias [Dv]
template <class T>
std::vector<T> linear_weight_gradient(const Vector& v, const Inputs<T>& in,
                                      const std::vector<T>& d_y) {
  std::vector<T> d_weight(v.v_head_dim * v.head_dim), d_bias(v.v_head_dim);
  for (size_t m = 0; m < v.q_len; ++m) {
    for (size_t n = 0; n < v.v_head_dim; ++n) {
      const T d = d_y[m * v.v_head_dim + n];
      d_bias[n] += d;
      for (size_t k = 0; k < v.head_dim; ++k) {
        T& sum = d_weight[n * v.head_dim + k];
        sum = std::fma(d, in.query[m * v.head_dim + k], sum);
      }
    }
  }
  d_weight.insert(d_weight.end(), d_bias.begin(), d_bias.end());
  return d_weight;
}

template <class T>
Digests digests_of_vectors(const std::vector<T>& out, const std::vector<T>& lse,
                           const std::vector<T>& weights) {
  return {digest(out.data(), out.size()), digest(lse.data(), lse.size()),
          digest(weights.data(), weights.size())};
}

template <class T>
Digests digests_of(const Vector& v) {
  const Inputs<T> in = make_inputs<T>(v);
  if (v.op == "linear") {
    const std::vector<T> out = run_linear(v, in);
    return digests_of_vectors(out, linear_input_gradient(v, in, out),
                              linear_weight_gradient(v, in, out));
  }
  if (v.op == "heads") {
    const HeadsOutputs<T> outputs = run_heads(v, in);
    return digests_of_vectors(outputs.y, outputs.d_x, outputs.d_weight);
  }
  if (v.op == "backward") {
    const GradientsInOrder<T> gradients = run_backward(v, in);
    return digests_of_vectors(gradients.query, gradients.keys, gradients.values);
  }
  Outputs<T> outputs = run_attention(v, in);
  if (v.weights == "mean") outputs.weights = average_heads(v, outputs.weights);
  Digests result = digests_of_vectors(outputs.out, outputs.lse, outputs.weights);
  if (v.weights == "-") result.weights = v.weights;
  return result;
}

bool check(const char* name, const char* what, const std::string& got, const std::string& want) {
  if (got == want) return true;
  std::printf("%s: %s: got %s, the table has %s\n", name, what, got.c_str(), want.c_str());
  return false;
}

void print(const Vector& v, const Digests& got) {
  std::printf("%s %s %s %zu %zu %zu %zu %zu %zu %zu %zu %s %s %s %s %s %s %s %s %s\n", v.op.c_str(),
              v.name.c_str(), v.dtype.c_str(), v.batch, v.heads, v.kv_heads, v.q_len, v.kv_len,
              v.extra, v.head_dim, v.v_head_dim, v.scale.c_str(), v.regime.c_str(), v.masks.c_str(),
              v.empty.c_str(), v.weights.c_str(), v.dropout.c_str(), got.out.c_str(),
              got.lse.c_str(), got.weights.c_str());
}

int run(const char* path, bool printing) {
  int wrong = 0;
  const std::vector<Vector> table = read_vectors(path);
  for (const Vector& v : table) {
    const Digests got = v.dtype == "float32" ? digests_of<float>(v) : digests_of<double>(v);
    if (printing) {
      print(v, got);
      continue;
    }
    wrong += !check(v.name.c_str(), "out", got.out, v.out_sha);
    wrong += !check(v.name.c_str(), "lse", got.lse, v.lse_sha);
    wrong += !check(v.name.c_str(), "weights", got.weights, v.weights_sha);
  }
  if (!printing) std::printf("%zu vectors, %d digests differ\n", table.size(), wrong);
  return wrong == 0 && !table.empty() ? 0 : 1;
}

}  // namespace
}  // namespace canonical

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: canonical_order vectors.txt [--print]\n", stderr);
    return 2;
  }
  try {
    return canonical::run(argv[1], argc > 2 && std::strcmp(argv[2], "--print") == 0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "canonical_order: %s\n", error.what());
    return 2;
  }
}
