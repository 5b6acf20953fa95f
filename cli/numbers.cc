#include "numbers.h"

#include <polyhead/error.h>

namespace polyhead::cli {
namespace {

template <class T>
double number_at(const void* data, int64_t offset) {
  return static_cast<double>(static_cast<const T*>(data)[offset]);
}

using ReadNumber = double (*)(const void* data, int64_t offset);

ReadNumber reader(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return number_at<float>;
    case DType::kFloat64:
      return number_at<double>;
    case DType::kBool:
      return number_at<unsigned char>;
    case DType::kInt32:
      return number_at<int32_t>;
    case DType::kInt64:
      return number_at<int64_t>;
    default:
      throw Unsupported(std::string("numbers_of: dtype is ") + dtype_name(dtype) +
                        "; must be float32, float64, bool, int32 or int64");
  }
}

void append(const ConstTensorView& view, ReadNumber read, std::vector<double>& numbers) {
  if (view.rank() == 0) {
    numbers.push_back(read(view.data(), 0));
    return;
  }
  for (int64_t i = 0; i < view.size(0); ++i) {
    if (view.rank() == 1) {
      numbers.push_back(read(view.data(), i * view.stride(0)));
    } else {
      append(view.select(0, i), read, numbers);
    }
  }
}

}  // namespace

std::vector<double> numbers_of(const ConstTensorView& view) {
  std::vector<double> numbers;
  numbers.reserve(static_cast<size_t>(view.numel()));
  append(view, reader(view.dtype()), numbers);
  return numbers;
}

}  // namespace polyhead::cli
