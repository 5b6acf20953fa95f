// Matrices as text: the numbers in aligned columns where they are few, else a corner of them and a
// picture in shades.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terminal.h"

namespace polyhead::cli {

// Row-major [rows, columns], in double. -inf stands for a masked pair.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<double> numbers = {};

  double at(int64_t row, int64_t column) const {
    return numbers[static_cast<size_t>(row * columns + column)];
  }
};

// Whether a matrix too large for its numbers is shown as a picture as well.
enum class Picture { kNo, kYes };

// Lines that end in '\n', each indented by `indent`.
std::string matrix_text(const Matrix& matrix, const Terminal& terminal, int indent,
                        Picture picture);

// Several matrices of one shape side by side, as pictures under `captions`.
std::string gallery_text(const std::vector<Matrix>& matrices,
                         const std::vector<std::string>& captions, const Terminal& terminal,
                         int indent);

}  // namespace polyhead::cli
