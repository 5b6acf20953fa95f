#include "file_info.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <ostream>

#include <polyhead/io.h>
#include "base/escape.h"
#include "errors.h"
#include "matrix_text.h"
#include "module/recognise.h"
#include "numbers.h"
#include "text.h"

namespace polyhead::cli {
namespace {

constexpr size_t kLongestName = 200;  // a hostile name does not fill the screen

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (int64_t size : shape) text += (text.size() == 1 ? "" : ", ") + std::to_string(size);
  return text + "]";
}

std::string bytes_text(int64_t bytes) {
  char text[40];
  if (bytes < 10'000) {
    std::snprintf(text, sizeof text, "%lld B", static_cast<long long>(bytes));
  } else if (bytes < 10'000'000) {
    std::snprintf(text, sizeof text, "%.1f kB", static_cast<double>(bytes) / 1e3);
  } else {
    std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  }
  return text;
}

// Left-aligned columns, two blanks between them.
void print_table(const std::vector<std::vector<std::string>>& rows, std::ostream& out) {
  std::vector<int> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  }
  for (const auto& row : rows) {
    std::string line = " ";
    for (size_t c = 0; c < row.size(); ++c) {
      line += " " + row[c];
      const int padding = c + 1 < row.size() ? widths[c] - display_width(row[c]) + 1 : 0;
      line += std::string(static_cast<size_t>(padding), ' ');
    }
    out << line << "\n";
  }
}

bool is_npy(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw FileError(escaped(path) + ": no such file");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw FileError(escaped(path) + ": is not a regular file");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FileError(escaped(path) + ": cannot be read: " + std::strerror(errno));
  char magic[6] = {};
  file.read(magic, sizeof magic);
  return std::memcmp(magic, "\x93NUMPY", sizeof magic) == 0;
}

void print_statistics(const std::vector<double>& numbers, std::ostream& out) {
  int64_t finite = 0, nans = 0;
  double least = 0, most = 0, sum = 0;
  for (double x : numbers) {
    nans += std::isnan(x);
    if (!std::isfinite(x)) continue;
    least = finite == 0 ? x : std::min(least, x);
    most = finite == 0 ? x : std::max(most, x);
    sum += x;
    ++finite;
  }
  const auto infinite = static_cast<int64_t>(numbers.size()) - finite - nans;
  if (finite > 0) {
    char text[120];
    std::snprintf(text, sizeof text, "  from %.4g to %.4g, mean %.4g", least, most,
                  sum / static_cast<double>(finite));
    out << text << "\n";
  }
  if (nans > 0) out << "  " << nans << " NaN\n";
  if (infinite > 0) out << "  " << infinite << " infinite\n";
}

void print_npy(const std::string& path, std::ostream& out) {
  const Tensor tensor = load_npy(path);
  out << escaped(path) << ": npy, " << dtype_name(tensor.dtype()) << " " << tensor.shape_string()
      << "\n";
  if (tensor.dtype() == DType::kFloat16 || tensor.dtype() == DType::kBFloat16) return;
  if (tensor.numel() == 0) return;
  const std::vector<double> numbers = numbers_of(tensor);
  print_statistics(numbers, out);
  // The last two dimensions at the first place of the others.
  const int rank = tensor.rank();
  const int64_t columns = rank > 0 ? tensor.size(rank - 1) : 1;
  const int64_t rows = rank > 1 ? tensor.size(rank - 2) : 1;
  const Matrix matrix{rows, columns, {numbers.begin(), numbers.begin() + rows * columns}};
  if (rank > 2) out << "  the first [" << rows << ", " << columns << "] of it:\n";
  out << matrix_text(matrix, stdout_terminal(), 4, Picture::kNo);
}

std::string flags_of(const RecognisedModule& module) {
  std::string flags;
  if (!module.prefix.empty()) flags += " --prefix " + escaped(module.prefix, kLongestName);
  if (!module.map.empty()) flags += " --map " + module.map;
  if (module.num_heads == 0) flags += " --num-heads H";
  return flags.empty() ? "no flags needed" : "flags" + flags;
}

void print_module(const RecognisedModule& module, std::ostream& out) {
  out << "  " << layout_name(module.layout) << ", embed_dim " << module.embed_dim;
  if (module.kdim != module.embed_dim) out << ", kdim " << module.kdim;
  if (module.vdim != module.embed_dim) out << ", vdim " << module.vdim;
  if (module.num_heads != 0) out << ", " << counted(module.num_heads, "head", "heads");
  if (module.kv_width != module.width) {
    out << ", key and value " << module.kv_width << " wide, query " << module.width;
  }
  if (!module.dtype.empty()) out << ", " << escaped(module.dtype);
  out << (module.has_bias ? "" : ", no biases") << (module.has_bias_kv ? ", bias_k and bias_v" : "")
      << (module.norm_dim != 0 ? ", norms of query and key" : "");
  if (module.problems.empty() || !module.prefix.empty()) out << ": " << flags_of(module);
  out << "\n";
  for (const std::string& problem : module.problems)
    out << "    would not load: " << problem << "\n";
}

void print_safetensors(const std::string& path, std::ostream& out) {
  const SafetensorsFile file(path);
  int64_t bytes = 0;
  std::vector<std::vector<std::string>> rows;
  for (const SafetensorsEntry& entry : file.entries()) {
    bytes += entry.end - entry.begin;
    rows.push_back({escaped(entry.name, kLongestName), entry.dtype, shape_text(entry.shape),
                    bytes_text(entry.end - entry.begin)});
  }
  out << escaped(path) << ": safetensors, "
      << counted(static_cast<int64_t>(rows.size()), "tensor", "tensors") << ", "
      << bytes_text(bytes) << "\n";
  print_table(rows, out);
  if (!file.metadata().empty()) out << "\n__metadata__:\n";
  for (const auto& [key, text] : file.metadata()) {
    out << "  " << escaped(key, kLongestName) << ": " << escaped(text, kLongestName) << "\n";
  }
  const std::vector<RecognisedModule> modules = recognise_modules(file);
  out << "\n"
      << (modules.empty() ? "No attention module is recognised.\n" : "Attention modules:\n");
  for (const RecognisedModule& module : modules) print_module(module, out);
}

}  // namespace

void print_file_info(const std::string& path, std::ostream& out) {
  if (is_npy(path)) {
    print_npy(path, out);
  } else {
    print_safetensors(path, out);
  }
}

}  // namespace polyhead::cli
