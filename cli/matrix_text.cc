#include "matrix_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "text.h"

namespace polyhead::cli {
namespace {

constexpr int64_t kMaxNumberRows = 10;  // more rows than that are a picture
constexpr int64_t kCornerRows = 3;
constexpr int64_t kPictureRows = 16;
constexpr int64_t kGalleryRows = 8, kGalleryColumns = 18;
constexpr double kInf = std::numeric_limits<double>::infinity();

// One format for all numbers of a matrix, so that they can be compared by eye.
class NumberFormat {
 public:
  explicit NumberFormat(const Matrix& matrix) {
    double largest = 0;
    for (double x : matrix.numbers) {
      if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
    }
    // Fixed point from 0.001 to a million (the from-scratch mask adds -1e5), else powers of ten.
    fixed_ = largest == 0 || (largest >= 1e-3 && largest < 1e6);
    decimals_ = largest < 10 ? 4 : 2;
    for (double x : matrix.numbers) width_ = std::max(width_, static_cast<int>(text(x).size()));
  }

  int width() const { return width_; }
  std::string padded(double x) const {
    const std::string number = text(x);
    return std::string(static_cast<size_t>(width_) - number.size(), ' ') + number;
  }
  std::string text(double x) const {
    char buffer[40];
    if (fixed_) {
      std::snprintf(buffer, sizeof buffer, "%.*f", decimals_, x);
    } else {
      std::snprintf(buffer, sizeof buffer, "%.3e", x);
    }
    return buffer;
  }

 private:
  bool fixed_ = true;
  int decimals_ = 4, width_ = 1;
};

std::string spaces(int64_t count) {
  return std::string(static_cast<size_t>(std::max<int64_t>(count, 0)), ' ');
}

// Shades from the smallest number to the largest; masked and NaN cells have signs of their own.
class Shades {
 public:
  Shades(const std::vector<const Matrix*>& matrices, bool unicode) : unicode_(unicode) {
    for (const Matrix* matrix : matrices) {
      for (double x : matrix->numbers) {
        if (!std::isfinite(x)) continue;
        least_ = std::min(least_, x);
        most_ = std::max(most_, x);
      }
    }
  }

  // The cell's largest number: a lone peak stays visible when cells hold many.
  std::string cell(const Matrix& matrix, int64_t row, int64_t rows, int64_t column,
                   int64_t columns) const {
    double most = -kInf;
    for (int64_t i = row * matrix.rows / rows;
         i < std::max((row + 1) * matrix.rows / rows, row * matrix.rows / rows + 1); ++i) {
      const int64_t first = column * matrix.columns / columns;
      const int64_t last = std::max((column + 1) * matrix.columns / columns, first + 1);
      for (int64_t j = first; j < last; ++j) {
        if (std::isnan(matrix.at(i, j))) return "?";
        most = std::max(most, matrix.at(i, j));
      }
    }
    return shade(most);
  }

  std::string legend() const {
    if (least_ > most_) return "no finite number";
    char text[160];
    if (least_ == most_) {
      std::snprintf(text, sizeof text, "\"%s\" %.3g", shade(least_).c_str(), least_);
      return text;
    }
    std::snprintf(text, sizeof text, "\"%s\" %.3g  to  \"%s\" %.3g", shade(least_).c_str(), least_,
                  shade(most_).c_str(), most_);
    return text;
  }

 private:
  std::string shade(double x) const {
    static constexpr const char* kBlocks[] = {" ", "\u2591", "\u2592", "\u2593", "\u2588"};
    static constexpr const char kAscii[] = " .:-=+*#%@";
    if (x == -kInf) return unicode_ ? "\u00d7" : "x";
    const int count = unicode_ ? 5 : 10;
    const double share = most_ > least_ ? (x - least_) / (most_ - least_) : 1;
    const int index = std::clamp(static_cast<int>(share * count), 0, count - 1);
    return unicode_ ? kBlocks[index] : std::string(1, kAscii[index]);
  }

  bool unicode_;
  double least_ = kInf, most_ = -kInf;
};

bool has_masked(const Matrix& matrix) {
  return std::find(matrix.numbers.begin(), matrix.numbers.end(), -kInf) != matrix.numbers.end();
}

// The first `rows` rows, `columns` columns; dots where something is left out.
std::string numbers_text(const Matrix& matrix, int64_t rows, int64_t columns,
                         const NumberFormat& format, int indent) {
  std::string text;
  for (int64_t i = 0; i < rows; ++i) {
    std::string line = spaces(indent);
    for (int64_t j = 0; j < columns; ++j)
      line += (j == 0 ? "" : "  ") + format.padded(matrix.at(i, j));
    text += line + (columns < matrix.columns ? "  ..." : "") + "\n";
  }
  if (rows < matrix.rows) text += spaces(indent) + "...\n";
  return text;
}

std::string picture_row(const Matrix& matrix, const Shades& shades, int64_t row, int64_t rows,
                        int64_t columns) {
  std::string line = "|";
  for (int64_t j = 0; j < columns; ++j) line += shades.cell(matrix, row, rows, j, columns);
  return line + "|";
}

std::string picture_text(const Matrix& matrix, const Terminal& terminal, int indent) {
  const Shades shades({&matrix}, terminal.unicode);
  const int64_t rows = std::min(matrix.rows, kPictureRows);
  const int64_t columns = std::min<int64_t>(matrix.columns, terminal.width - indent - 2);
  std::string text = spaces(indent) + shades.legend();
  if (has_masked(matrix))
    text += std::string("  \"") + (terminal.unicode ? "\u00d7" : "x") + "\" masked";
  if (rows < matrix.rows || columns < matrix.columns) {
    text += "  (the largest of each cell)";
  }
  text += "\n";
  for (int64_t i = 0; i < rows; ++i) {
    text += spaces(indent) + picture_row(matrix, shades, i, rows, columns) + "\n";
  }
  return text;
}

}  // namespace

std::string matrix_text(const Matrix& matrix, const Terminal& terminal, int indent,
                        Picture picture) {
  if (matrix.rows == 0 || matrix.columns == 0) return spaces(indent) + "(empty)\n";
  const NumberFormat format(matrix);
  const int64_t room = terminal.width - indent;
  const bool wide = matrix.columns * (format.width() + 2) - 2 > room;
  if (!wide && matrix.rows <= kMaxNumberRows) {
    return numbers_text(matrix, matrix.rows, matrix.columns, format, indent);
  }
  const int64_t columns =
      wide ? std::max<int64_t>(1, (room - 5) / (format.width() + 2)) : matrix.columns;
  const int64_t rows = std::min(matrix.rows, kCornerRows);
  return numbers_text(matrix, rows, columns, format, indent) +
         (picture == Picture::kYes ? picture_text(matrix, terminal, indent) : "");
}

std::string gallery_text(const std::vector<Matrix>& matrices,
                         const std::vector<std::string>& captions, const Terminal& terminal,
                         int indent) {
  if (matrices.empty() || matrices[0].rows == 0 || matrices[0].columns == 0) return {};
  std::vector<const Matrix*> pointers;
  for (const Matrix& matrix : matrices) pointers.push_back(&matrix);
  const Shades shades(pointers, terminal.unicode);
  const int64_t rows = std::min(matrices[0].rows, kGalleryRows);
  const int64_t columns = std::min(matrices[0].columns, kGalleryColumns);
  int64_t cell = columns + 2;
  for (const std::string& caption : captions)
    cell = std::max<int64_t>(cell, display_width(caption));
  const int64_t per_line = std::max<int64_t>(1, (terminal.width - indent + 2) / (cell + 2));
  std::string text = spaces(indent) + shades.legend() + "\n";
  for (size_t first = 0; first < matrices.size(); first += static_cast<size_t>(per_line)) {
    const size_t last = std::min(matrices.size(), first + static_cast<size_t>(per_line));
    std::string line = spaces(indent);
    for (size_t n = first; n < last; ++n) {
      line += captions[n] + spaces(n + 1 < last ? cell + 2 - display_width(captions[n]) : 0);
    }
    text += line + "\n";
    for (int64_t i = 0; i < rows; ++i) {
      line = spaces(indent);
      for (size_t n = first; n < last; ++n) {
        line += picture_row(matrices[n], shades, i, rows, columns) +
                spaces(n + 1 < last ? cell - columns : 0);
      }
      text += line + "\n";
    }
  }
  return text;
}

}  // namespace polyhead::cli
