#include "job.h"

#include <algorithm>
#include <map>

#include "base/escape.h"
#include "errors.h"
#include "module_choice.h"
#include "text.h"

namespace polyhead::cli {
namespace {

// An input that is not given stays undefined.
Tensor load_input(const std::string& flag, const std::string& path) {
  if (path.empty()) return {};
  try {
    return load_npy(path);
  } catch (const IoError& error) {
    throw FileError(flag + " " + without_function(error.what()));
  } catch (const Unsupported& error) {
    throw FileError(flag + " " + without_function(error.what()));
  }
}

// The library speaks of its arguments ("MultiheadAttention::forward: key: batch is 3; ..."), the
// user knows flags and files.
[[noreturn]] void rethrow_with_files(const InvalidArgument& error, const ModuleArguments& a) {
  const std::map<std::string, std::pair<std::string, std::string>> sources = {
      {"query", {"--query", a.query}},
      {"q", {"--query", a.query}},
      {"key", {a.key.empty() ? "--key (the query)" : "--key", a.key}},
      {"k", {a.key.empty() ? "--key (the query)" : "--key", a.key}},
      {"value", {a.value.empty() ? "--value (the key)" : "--value", a.value}},
      {"v", {a.value.empty() ? "--value (the key)" : "--value", a.value}},
      {"num_heads", {a.num_heads ? "--num-heads" : "num_heads of", a.num_heads ? "" : a.weights}},
      {"attn_mask", {"--attn-mask", a.attn_mask}},
      {"key_padding_mask", {"--key-padding-mask", a.key_padding_mask}},
      {"mask", {"--scratch-mask", a.scratch_mask}},
      {"names", {"--map", a.map}}};
  const std::string text = without_function(error.what());
  const size_t end = text.find(": ");
  const auto source = sources.find(text.substr(0, end));
  if (source == sources.end()) throw FileError(text);
  const auto& [flag, path] = source->second;
  throw FileError(flag + (path.empty() ? "" : " " + escaped(path)) + text.substr(end));
}

// Of the loader: "MultiheadAttention::load: w.safetensors: num_heads: got 3; ...".
[[noreturn]] void rethrow_of_load(const InvalidArgument& error, const ModuleArguments& a) {
  const std::string text = error.what(), file = ": " + escaped(a.weights) + ": ";
  const size_t at = text.find(file);
  if (at == std::string::npos) rethrow_with_files(error, a);
  const std::string rest = text.substr(at + file.size());
  if (a.num_heads && rest.starts_with("num_heads: "))
    throw FileError("--num-heads" + rest.substr(9));
  if (rest.starts_with("prefix: ")) throw FileError("--" + rest);
  throw FileError("--weights " + escaped(a.weights) + ": " +
                  replaced(rest, "name one as prefix: ", "name one with --prefix: "));
}

Tensor empty_like_out(const ConstTensorView& query) { return Tensor(query.dtype(), query.shape()); }

}  // namespace

std::vector<std::string> input_paths(const ModuleArguments& a) {
  std::vector<std::string> paths;
  for (const std::string* path : {&a.weights, &a.query, &a.key, &a.value, &a.attn_mask,
                                  &a.key_padding_mask, &a.scratch_mask}) {
    if (!path->empty()) paths.push_back(*path);
  }
  if (a.map.ends_with(".json")) paths.push_back(a.map);
  return paths;
}

WeightsMode wanted_weights(const ModuleArguments& arguments) {
  if (arguments.need_weights) return *arguments.need_weights;
  return arguments.weights_out.empty() ? WeightsMode::kNone : WeightsMode::kAverage;
}

void Job::load_module() {
  try {
    load_chosen_module();
  } catch (const IoError& error) {
    throw FileError("--weights " + without_function(error.what()));
  } catch (const InvalidArgument& error) {
    rethrow_of_load(error, arguments_);
  }
}

void Job::load_chosen_module() {
  const ModuleChoice choice = choose_module(arguments_);
  check_layout_flags(arguments_, choice.scratch, choice.because);
  LoadOptions options;
  options.num_heads = arguments_.num_heads.value_or(0);
  options.layout = arguments_.sequence_first ? Layout::kSequenceFirst : Layout::kBatchFirst;
  options.prefix = arguments_.prefix;
  if (arguments_.add_zero_attn) options.add_zero_attn = true;
  options.names = choice.names;
  map_is_idle_ = choice.map_is_idle;
  if (choice.scratch) {
    scratch_ = FromScratchMultiHeadAttention::load(arguments_.weights, options);
  } else {
    mha_ = MultiheadAttention::load(arguments_.weights, options);
  }
}

Job::Job(const ModuleArguments& arguments) : arguments_(arguments) {
  if (arguments_.threads) set_num_threads(*arguments_.threads);
  load_module();
  load_inputs();
}

void Job::load_inputs() {
  query_ = load_input("--query", arguments_.query);
  key_ = load_input("--key", arguments_.key);
  value_ = load_input("--value", arguments_.value);
  attn_mask_ = load_input("--attn-mask", arguments_.attn_mask);
  key_padding_mask_ = load_input("--key-padding-mask", arguments_.key_padding_mask);
  scratch_mask_ = load_input("--scratch-mask", arguments_.scratch_mask);
}

ForwardOptions Job::options(WeightsMode need_weights) const {
  ForwardOptions options;
  if (attn_mask_.defined()) options.attn_mask = attn_mask_;
  if (key_padding_mask_.defined()) options.key_padding_mask = key_padding_mask_;
  options.is_causal = arguments_.causal;
  options.causal_align = arguments_.causal_align.value_or(CausalAlign::kTopLeft);
  options.empty_rows = arguments_.empty_rows.value_or(EmptyRow::kZero);
  options.need_weights = need_weights;
  return options;
}

ConstTensorView Job::batch_first(const ConstTensorView& view) const {
  if (view.rank() == 2) return view.unsqueezed(0);
  return arguments_.sequence_first && view.rank() == 3 ? view.transposed(0, 1) : view;
}

Job::Result Job::forward(WeightsMode need_weights) const {
  try {
    if (scratch_) return forward_scratch(need_weights);
    MultiheadAttention::Result result =
        mha_->forward(query(), key(), value(), options(need_weights));
    return {std::move(result.out), std::move(result.weights)};
  } catch (const InvalidArgument& error) {
    rethrow_with_files(error, arguments_);
  }
}

// The class knows batch-first 3-D only; other arrangements are views of it.
Job::Result Job::forward_scratch(WeightsMode need_weights) const {
  const ConstTensorView q = batch_first(query()), k = batch_first(key()), v = batch_first(value());
  Result result;
  result.out = empty_like_out(query());
  TensorView out = result.out;
  if (!batched()) out = out.unsqueezed(0);
  if (batched() && arguments_.sequence_first) out = out.transposed(0, 1);
  Tensor weights;  // [B, L, S] or [B, H, L, S]
  if (need_weights != WeightsMode::kNone && q.rank() == 3 && k.rank() == 3) {
    std::vector<int64_t> shape = {q.size(0), q.size(1), k.size(1)};
    if (need_weights == WeightsMode::kPerHead) shape.insert(shape.begin() + 1, num_heads());
    weights = Tensor(query().dtype(), shape);
  }
  scratch_->forward_into(q, k, v, scratch_mask_.defined() ? scratch_mask_ : ConstTensorView(), out,
                         weights.defined() ? weights.view() : TensorView());
  if (weights.defined()) {
    result.weights = batched() ? std::move(weights) : Tensor(weights.view().select(0, 0));
  }
  return result;
}

int64_t Job::num_heads() const { return mha_ ? mha_->config().num_heads : scratch_->num_heads(); }

int64_t Job::head_dim() const {
  if (mha_) return mha_->config().head_dim;
  return scratch_->head_width() == HeadWidth::kFull ? scratch_->embed_size()
                                                    : scratch_->embed_size() / num_heads();
}

std::string Job::module_name() const {
  if (mha_) return "nn.MultiheadAttention";
  return scratch_->head_width() == HeadWidth::kFull ? "from-scratch module, full head width"
                                                    : "from-scratch module";
}

std::string Job::understood() const {
  const ConstTensorView q = batch_first(query()), k = batch_first(key());
  return (batched() ? "batch " + std::to_string(q.size(0)) : std::string("unbatched")) + ", " +
         counted(q.size(1), "query", "queries") + ", " + counted(k.size(1), "key", "keys") + ", " +
         counted(num_heads(), "head", "heads") + " of " + std::to_string(head_dim());
}

}  // namespace polyhead::cli
