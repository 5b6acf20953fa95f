// The kernel of norm and rotation against its double reference, on every instruction set, and the
// reference against differences.
#include "kernels/head_rows.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "base/message.h"
#include "module/heads/head_rows_reference.h"
#include "module/heads/rotary.h"
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "testing/guarded.h"
#include "testing/machine.h"
#include "testing/tolerance.h"

namespace polyhead {
namespace {

using oracle::random_tensor;

constexpr double kEpsilon = 0x1p-17;

struct Spec {
  DType dtype = DType::kFloat32;
  int64_t heads = 3, dim = 8;
  bool norm = true;
  Rope rope = {};
  int64_t position = 0;
  double deviation = 1;

  std::string describe() const {
    return message(dtype_name(dtype), " D", dim, norm ? ", norm" : "", ", pairs ",
                   static_cast<int>(rope.pairs), " of ", rope.rotary_dim, " at ", position);
  }
};

std::vector<Spec> specs(DType dtype) {
  std::vector<Spec> all;
  for (const int64_t dim : {1, 2, 6, 8, 15, 16, 17, 34, 64, 66, 80, 96, 128, 256}) {
    all.push_back({.dtype = dtype, .dim = dim, .deviation = dim % 4 == 0 ? 1.0 : 100.0});
    for (const RopePairs pairs : {RopePairs::kHalves, RopePairs::kInterleaved}) {
      for (const int64_t rotary : {dim / 2 * 2, dim / 4 * 2, int64_t{2}}) {
        if (rotary < 2 || rotary > dim) continue;
        const Rope rope{.pairs = pairs, .rotary_dim = rotary};
        for (const bool norm : {false, true}) {
          all.push_back({.dtype = dtype, .dim = dim, .norm = norm, .rope = rope, .position = 1234});
        }
      }
    }
  }
  return all;
}

// A row of each head, and what came out: rows, or gradients and the norm's own.
struct Rows {
  explicit Rows(const Spec& s)
      : spec(s),
        x(random_tensor(s.dtype, {s.heads, s.dim}, 1, s.deviation)),
        d_y(random_tensor(s.dtype, {s.heads, s.dim}, 2)),
        norm(random_tensor(s.dtype, {s.dim}, 3)),
        d_norm(s.dtype, {s.dim}) {}

  template <class T>
  HeadRows<T> rows(std::vector<T>* angles, Turn turn) {
    HeadRows<T> rows{.from = x.data_as<T>(), .to = x.data_as<T>()};
    rows.batch = 1;
    rows.heads = static_cast<size_t>(spec.heads);
    rows.head_dim = static_cast<size_t>(spec.dim);
    rows.from_head = rows.to_head = spec.dim;
    if (spec.norm) rows.norm = norm.data_as<T>();
    rows.epsilon = static_cast<T>(kEpsilon);
    if (spec.rope.pairs == RopePairs::kNone) return rows;
    rows.rotary_dim = static_cast<size_t>(spec.rope.rotary_dim);
    rows.interleaved = spec.rope.pairs == RopePairs::kInterleaved;
    angles->resize(2 * rows.rotary_dim);
    rows.cosine = angles->data();
    rows.sine = angles->data() + rows.rotary_dim;
    rotary_row(rotary_steps(spec.rope), spec.position, rows.interleaved, turn, angles->data(),
               angles->data() + rows.rotary_dim);
    return rows;
  }

  template <class T>
  void forward() {
    std::vector<T> angles;
    head_rows_kernel<T>(active_isa()).forward(rows(&angles, Turn::kForward));
  }
  template <class T>
  void backward() {
    std::vector<T> angles;
    HeadRowsBackward<T> backward{.rows = rows(&angles, Turn::kBack)};
    backward.gradient = d_y.data_as<T>();
    backward.gradient_head = spec.dim;
    backward.d_norm = d_norm.data_as<T>();
    head_rows_kernel<T>(active_isa()).backward(backward);
  }
  void run(bool back) {
    if (spec.dtype == DType::kFloat32) return back ? backward<float>() : forward<float>();
    back ? backward<double>() : forward<double>();
  }

  Spec spec;
  Tensor x, d_y, norm, d_norm;
};

struct Truth {
  Tensor value, budget;
};

RowNumbers row_of(const Tensor& rows, int64_t n) {
  RowNumbers row;
  for (int64_t d = 0; d < rows.size(rows.rank() - 1); ++d) {
    row.push_back({oracle::read(rows, {n, d}), 0});
  }
  return row;
}

void put(const RowNumbers& row, Truth* to, int64_t n) {
  for (size_t d = 0; d < row.size(); ++d) {
    oracle::write(to->value, {n, static_cast<int64_t>(d)}, row[d].value);
    oracle::write(to->budget, {n, static_cast<int64_t>(d)}, row[d].error);
  }
}

class Reference {
 public:
  explicit Reference(const Rows& rows)
      : rows_(rows),
        unit_(oracle::unit_roundoff(rows.spec.dtype)),
        norm_(oracle::converted(rows.norm, DType::kFloat64)) {}

  Truth forward() const {
    Truth truth = truth_like(rows_.x);
    for (int64_t n = 0; n < rows_.spec.heads; ++n) {
      RowNumbers row = row_of(rows_.x, n);
      if (rows_.spec.norm) norm_reference(row, norm_.data_as<double>(), kEpsilon, unit_);
      if (turns()) rotate_reference(row, rows_.spec.rope, rows_.spec.position, unit_);
      put(row, &truth, n);
    }
    return truth;
  }

  // Of x, and, summed over the rows, of the norm's weight.
  std::pair<Truth, Truth> backward() const {
    Truth d_x = truth_like(rows_.x), d_norm = truth_like(rows_.d_norm);
    for (int64_t n = 0; n < rows_.spec.heads; ++n) {
      RowNumbers row = row_of(rows_.d_y, n), share = row;
      if (turns()) rotate_backward_reference(row, rows_.spec.rope, rows_.spec.position, unit_);
      if (rows_.spec.norm) {
        norm_backward_reference(row, row_of(rows_.x, n), norm_.data_as<double>(), kEpsilon, unit_,
                                &share);
        for (size_t d = 0; d < share.size(); ++d) {
          d_norm.value.data_as<double>()[d] += share[d].value;
          d_norm.budget.data_as<double>()[d] +=
              share[d].error + 2 * unit_ * std::abs(share[d].value);
        }
      }
      put(row, &d_x, n);
    }
    return {std::move(d_x), std::move(d_norm)};
  }

 private:
  static Truth truth_like(const Tensor& rows) {
    return {Tensor(DType::kFloat64, rows.shape()), Tensor(DType::kFloat64, rows.shape())};
  }
  bool turns() const { return rows_.spec.rope.pairs != RopePairs::kNone; }

  const Rows& rows_;
  double unit_;
  Tensor norm_;
};

class HeadRowsTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, HeadRowsTest, ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(HeadRowsTest, IsTheReferenceOnEveryInstructionSet) {
  const std::string suite = std::string("head_rows.") + dtype_name(GetParam());
  oracle::for_each_isa([&](const std::string& isa) {
    for (const Spec& spec : specs(GetParam())) {
      Rows rows(spec);
      const std::string what = isa + ": " + spec.describe();
      const auto [d_x, d_norm] = Reference(rows).backward();
      rows.run(/*back=*/true);
      oracle::expect_within_budget(rows.d_y, d_x.value, d_x.budget,
                                   {suite + ".d_x", what, oracle::Zeros::kPlausible});
      if (spec.norm) {
        oracle::expect_within_budget(rows.d_norm, d_norm.value, d_norm.budget,
                                     {suite + ".d_norm", what, oracle::Zeros::kPlausible});
      }
      const Truth y = Reference(rows).forward();
      rows.run(/*back=*/false);
      oracle::expect_within_budget(rows.x, y.value, y.budget, {suite + ".y", what});
    }
  });
}

TEST_P(HeadRowsTest, InstructionSetsDoNotMatter) {
  for (const Spec& spec : specs(GetParam())) {
    std::vector<Rows> results;
    for (const std::string& isa : oracle::isas_with_fma()) {
      const oracle::ForcedIsa forced(isa);
      results.emplace_back(spec);
      results.back().run(/*back=*/true);
      results.back().run(/*back=*/false);
      oracle::expect_same_bits(results.back().x, results.front().x, spec.describe());
      oracle::expect_same_bits(results.back().d_y, results.front().d_y, spec.describe());
      oracle::expect_same_bits(results.back().d_norm, results.front().d_norm, spec.describe());
    }
  }
}

// What no query has seen may be NaN.
TEST_P(HeadRowsTest, ARowWithoutAGradientGivesNone) {
  Rows rows({.dtype = GetParam(), .heads = 2, .dim = 20});
  oracle::fill(rows.x.view().select(0, 0), std::numeric_limits<double>::quiet_NaN());
  oracle::fill(rows.d_y.view().select(0, 0), 0);
  rows.run(/*back=*/true);
  Rows alone({.dtype = GetParam(), .heads = 2, .dim = 20});
  alone.d_y = Tensor(alone.d_y.view());
  oracle::fill(alone.d_y.view().select(0, 0), 0);
  alone.run(/*back=*/true);
  oracle::expect_same_bits(rows.d_y, alone.d_y, "d_x");
  oracle::expect_same_bits(rows.d_norm, alone.d_norm, "d_norm");
}

// <d_y, J v> = <J^T d_y, v> for v along each number: by central differences of the reference.
TEST(HeadRowsReference, BackwardIsTheDerivativeOfForward) {
  const Spec spec{.dtype = DType::kFloat64,
                  .heads = 1,
                  .dim = 6,
                  .rope = {.pairs = RopePairs::kInterleaved, .base = 10, .rotary_dim = 4},
                  .position = 5,
                  .deviation = 0.5};
  Rows rows(spec);
  const auto [d_x, d_norm] = Reference(rows).backward();
  const auto loss = [&] {
    const Truth y = Reference(rows).forward();
    double sum = 0;
    for (int64_t d = 0; d < 6; ++d) {
      sum += y.value.data_as<double>()[d] * rows.d_y.data_as<double>()[d];
    }
    return sum;
  };
  const auto difference = [&](double* x) {
    const double start = *x, step = oracle::kDifferenceStep;
    const auto at = [&](double offset) {
      *x = start + offset;
      return loss();
    };
    const double near = at(step) - at(-step), far = at(2 * step) - at(-2 * step);
    *x = start;
    return (8 * near - far) / (12 * step);
  };
  Tensor of_x(DType::kFloat64, {1, 6}), of_norm(DType::kFloat64, {6}), budget(of_x),
      budget_norm(of_norm);
  for (int64_t d = 0; d < 6; ++d) {
    of_x.data_as<double>()[d] = difference(rows.x.data_as<double>() + d);
    of_norm.data_as<double>()[d] = difference(rows.norm.data_as<double>() + d);
  }
  oracle::fill(budget, oracle::kDifferenceBudget);
  oracle::fill(budget_norm, oracle::kDifferenceBudget);
  oracle::expect_within_budget(d_x.value, of_x, budget, {"head_rows.differences", "d_x"});
  oracle::expect_within_budget(d_norm.value, of_norm, budget_norm,
                               {"head_rows.differences", "d_norm"});
}

}  // namespace
}  // namespace polyhead
