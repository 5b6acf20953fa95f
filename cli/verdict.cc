#include "verdict.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/message.h"

namespace polyhead::cli {
namespace {

std::string number_text(const char* format, double x) {
  char text[40];
  std::snprintf(text, sizeof text, format, x);
  return text;
}

// Names are padded to one width, so that the verdicts stand below each other.
std::string comparison_text(const char* name, const Comparison& c, const Terminal& terminal) {
  std::string text = message("  ", terminal.bold(name), c.within_budget() ? "ok   " : "WRONG");
  if (c.count == 0) return text + "  no elements\n";
  text += message("  worst error ", number_text("%.3g", c.worst_error), ", ",
                  number_text("%.3g", 100 * c.worst_share), " % of the budget\n");
  return text + message("           at ", where_text(c.where), ": got ", number_text("%.9g", c.got),
                        ", reference ", number_text("%.12g", c.want), ", budget ",
                        number_text("%.3g", c.budget), "\n");
}

nlohmann::ordered_json json_of(const Comparison& c) {
  return {{"elements", c.count},
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
              "\n", comparison_text("out      ", verdict.out, terminal));
  if (verdict.weights) text += comparison_text("weights  ", *verdict.weights, terminal);
  return text +
         (verdict.within_budget() ? "within the error budget\n" : "BEYOND the error budget\n");
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
