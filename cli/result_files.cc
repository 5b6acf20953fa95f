#include "result_files.h"

#include "base/escape.h"
#include "errors.h"
#include "report/report.h"
#include "text.h"

namespace polyhead::cli {
namespace {

// weights [B, H, L, S'], or [H, L, S'] unbatched.
void write_heads_page(const std::string& path, const Job& job, const ConstTensorView& weights) {
  ReportData data;
  data.title = "Attention of " + job.module_name();
  data.subtitle = job.understood();
  data.facts = {"Computed by polyhead " + std::string(version()) + " on " + isa() + "."};
  const ConstTensorView batched = job.batched() ? weights : weights.unsqueezed(0);
  for (int64_t b = 0; b < batched.size(0); ++b) {
    data.items.push_back({.title = "Batch item " + std::to_string(b + 1)});
  }
  // A page has at least one item: of an empty batch, one without queries.
  const Tensor none(batched.dtype(), {1, batched.size(1), 0, batched.size(3)});
  if (data.items.empty()) data.items.push_back({.title = "The batch is empty"});
  data.layers.push_back({.weights = batched.size(0) > 0 ? batched : none.view()});
  write_report(path, data);
}

// [B, H, L, S'] as text, B, H, L and S' what the job will give.
std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text + "]";
}

}  // namespace

ResultFiles::ResultFiles(const ModuleArguments& arguments, const std::string& out)
    : arguments_(arguments), out_(out) {
  check_output_paths(planned(), input_paths(arguments));
}

void ResultFiles::check_size(const Job& job) const {
  if (arguments_.report.empty()) return;
  const ConstTensorView query = job.batch_first(job.query()), key = job.batch_first(job.key());
  if (query.rank() != 3 || key.rank() != 3) return;  // the computation says what is wrong
  const int64_t extra =
      job.mha() ? job.mha()->config().add_bias_kv + job.mha()->config().add_zero_attn : 0;
  const std::vector<int64_t> shape = {query.size(0), job.num_heads(), query.size(1),
                                      key.size(1) + extra};
  double weights = 1;  // in double: nothing has checked yet that the product fits
  for (const int64_t size : shape) weights *= static_cast<double>(size);
  if (weights <= static_cast<double>(kMaxReportWeights)) return;
  throw FileError("--report: the weights are " + shape_text(shape) + "; a page holds at most " +
                  std::to_string(kMaxReportWeights));
}

// Without the means to write them yet.
std::vector<OutputFile> ResultFiles::planned() const {
  std::vector<OutputFile> files;
  if (!out_.empty()) files.push_back({"--out", out_, {}});
  if (!arguments_.weights_out.empty()) {
    files.push_back({"--weights-out", arguments_.weights_out, {}});
  }
  if (!arguments_.report.empty()) files.push_back({"--report", arguments_.report, {}});
  return files;
}

void ResultFiles::write(const Job& job, const Job::Result& result,
                        const WriteReport& write_report) const {
  Tensor per_head;  // [B, H, L, S'], or [H, L, S'] unbatched
  if (!arguments_.report.empty() && !write_report) {
    per_head = job.forward(WeightsMode::kPerHead).weights;
  }
  std::vector<OutputFile> files = planned();
  for (OutputFile& file : files) {
    if (file.flag == "--out") {
      file.write = [&](const std::string& path) { save_npy(path, result.out); };
    } else if (file.flag == "--weights-out") {
      file.write = [&](const std::string& path) { save_npy(path, result.weights); };
    } else if (write_report) {
      file.write = write_report;
    } else {
      file.write = [&](const std::string& path) { write_heads_page(path, job, per_head); };
    }
  }
  write_output_files(files);
}

}  // namespace polyhead::cli
