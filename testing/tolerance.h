// Every number that decides how wrong is too wrong. A change here is a change of its own, with its
// cause in the message: "it failed on one machine" is not a cause.
#pragma once

#include <polyhead/tensor_view.h>

namespace polyhead::oracle {

// Unit roundoff: half the distance from 1 to the next number.
constexpr double unit_roundoff(DType dtype) { return dtype == DType::kFloat32 ? 0x1p-24 : 0x1p-53; }

// The share of the reference's error budget (computed with C = 1) that a correct result may use.
// About twice the largest use that 18000 random cases of the forward op made of it (0.55 in
// float32, 0.69 in float64, where the truth is as rounded as the result); tests/data/headroom.txt
// records tighter limits suite by suite.
constexpr double allowed_use(DType dtype) { return dtype == DType::kFloat32 ? 1.0 : 1.4; }

// Ratio alarm: at most this many times as wrong as the naive loops in the same precision, ...
inline constexpr double kRatioToNaive = 2;
// ... plus this many roundings of the largest answer: naive loops are exact on a single key.
inline constexpr double kRatioFloorRoundings = 4;

// Central differences of fourth order: error about step^4 plus 2^-53 / step, the loss being about 1
// to 10.
inline constexpr double kDifferenceStep = 0x1p-10;
inline constexpr double kDifferenceBudget = 0x1p-36;
// Two sums of the same few hundred terms in different orders: roundings of their magnitudes' sum.
inline constexpr double kAdjointRoundings = 8;
// Two float64 backward passes that sum in different orders: roundings of the largest gradient.
inline constexpr double kGradientRoundings = 16;

// Of sine_cosine, in units of 2^-53; of a frequency of rotary positions, whose truth is powl's, in
// units of 2^-64, and of one that LLaMA 3's scaling blends, in units of 2^-53.
inline constexpr double kSineRoundings = 4;
inline constexpr double kPowerRoundings = 64;
inline constexpr double kBlendRoundings = 4;

// How many standard deviations a count of random bits may lie from its expectation: of ideal bits
// one in 1.7 million does.
inline constexpr double kDeviations = 5;

// A comparison of this many non-zero numbers or more, half of which would accept 0 too, proves
// nothing and fails.
inline constexpr long kDistrustFrom = 8;

// Below this use over a whole suite the budget is decoration, and the ledger says so.
inline constexpr double kDecoration = 0.01;

}  // namespace polyhead::oracle
