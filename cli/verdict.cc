#include "verdict.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/message.h"

namespace polyhead::cli {
namespace {

std::string number_text(const char* format, double x) {
  if (std::isnan(x)) return "nan";  // its sign means nothing
  char text[40];
  std::snprintf(text, sizeof text, format, x);
  return text;
}

// What is not finite, a line each; nothing where all is.
std::string not_finite_text(const Comparison& c, const std::string& dtype) {
  std::string text;
  const auto add = [&](const std::string& line) { text += message("           ", line, "\n"); };
  if (c.both_nan > 0) {
    add(message(c.both_nan, " of ", c.count, " are NaN here and in the reference"));
  }
  if (c.overflowed > 0) {
    add(message(c.overflowed, " of ", c.count, ": the computation overflows ", dtype,
                "; the reference is finite"));
  }
  return text;
}

// Names are padded to one width, so that the verdicts stand below each other.
std::string comparison_text(const char* name, const Comparison& c, const std::string& dtype,
                            const Terminal& terminal) {
  std::string text = message("  ", terminal.bold(name), c.within_budget() ? "ok   " : "WRONG");
  if (c.count == 0) return text + "  no elements\n";
  if (c.compared_nothing() && c.worst_share <= 1) {
    return text + "  no finite element was compared\n" + not_finite_text(c, dtype);
  }
  text += message("  worst error ", number_text("%.3g", c.worst_error), ", ",
                  number_text("%.3g", 100 * c.worst_share), " % of the budget\n");
  text += message("           at ", where_text(c.where), ": got ", number_text("%.9g", c.got),
                  ", reference ", number_text("%.12g", c.want), ", budget ",
                  number_text("%.3g", c.budget), "\n");
  return text + not_finite_text(c, dtype);
}

nlohmann::ordered_json json_of(const Comparison& c) {
  return {{"elements", c.count},
          {"finite", c.finite},
          {"nan_on_both_sides", c.both_nan},
          {"overflowed", c.overflowed},
          {"worst_error", c.worst_error},
          {"share_of_budget", c.worst_share},
          {"where", c.where},
          {"got", c.got},
          {"want", c.want},
          {"budget", c.budget},
          {"within_budget", c.within_budget()}};
}

}  // namespace

std::string verdict_text(const Verdict& verdict, const Terminal& terminal) {
  std::string text =
      message(verdict.module, ": ", verdict.understood, ", ", verdict.dtype, ", ", verdict.isa,
              "\n", comparison_text("out      ", verdict.out, verdict.dtype, terminal));
  if (verdict.weights)
    text += comparison_text("weights  ", *verdict.weights, verdict.dtype, terminal);
  if (verdict.within_budget()) return text + "within the error budget\n";
  const bool beyond =
      !(verdict.out.worst_share <= 1) || (verdict.weights && !(verdict.weights->worst_share <= 1));
  return text + (beyond ? "BEYOND the error budget\n" : "NOT VERIFIED: nothing to compare\n");
}

std::string verdict_json(const Verdict& verdict) {
  nlohmann::ordered_json json = {{"module", verdict.module},
                                 {"understood", verdict.understood},
                                 {"dtype", verdict.dtype},
                                 {"isa", verdict.isa},
                                 {"out", json_of(verdict.out)}};
  if (verdict.weights) json["weights"] = json_of(*verdict.weights);
  json["within_budget"] = verdict.within_budget();
  return json.dump(2) + "\n";
}

}  // namespace polyhead::cli
