#include <polyhead/io.h>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "io/elements.h"
#include "io/safetensors_writer.h"
#include "io/test_files.h"

namespace polyhead {
namespace {

using std::string_literals::operator""s;

constexpr DType kAllDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16,
                                DType::kBool,    DType::kInt32,   DType::kInt64};

// Every byte different, where the dtype allows.
Tensor counting(DType dtype, std::initializer_list<int64_t> shape) {
  Tensor tensor(dtype, shape);
  auto bytes = bytes_of(tensor);
  const unsigned modulus = dtype == DType::kBool ? 2 : 251;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % modulus);
  return tensor;
}

void expect_same(const Tensor& got, const Tensor& want) {
  EXPECT_EQ(got.dtype(), want.dtype());
  EXPECT_EQ(got.shape_string(), want.shape_string());
  const auto a = bytes_of(got), b = bytes_of(want);
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

TEST(Safetensors, RoundTripsEveryDtype) {
  const TestFolder folder;
  const std::string path = folder.path("all.safetensors");
  std::vector<Tensor> tensors;
  NamedTensors named;
  for (DType dtype : kAllDTypes) tensors.push_back(counting(dtype, {3, 1, 5}));
  for (const Tensor& tensor : tensors) named.emplace_back(dtype_name(tensor.dtype()), tensor);
  save_safetensors(path, named, {{"format", "pt"}, {"note", "two\nlines \"quoted\" \\"}});

  SafetensorsFile opened(path);
  const SafetensorsFile file = std::move(opened);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(file.metadata().at("note"), "two\nlines \"quoted\" \\");
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(file.entries()[i].name, named[i].first);  // the header keeps the order given
    expect_same(file.read(named[i].first), tensors[i]);
    const auto width = static_cast<int64_t>(dtype_bytes(tensors[i].dtype()));
    EXPECT_EQ(file.entries()[i].begin % width, 0);  // torch wants its elements aligned
  }
}

TEST(Safetensors, RoundTripsEveryRankAndEmptyTensors) {
  const TestFolder folder;
  const Tensor tensors[] = {counting(DType::kFloat32, {}), counting(DType::kFloat32, {7}),
                            counting(DType::kFloat32, {2, 0, 3}),
                            counting(DType::kFloat32, {1, 2, 1, 2, 1, 2, 1, 2})};
  NamedTensors named;
  for (const Tensor& tensor : tensors) named.emplace_back(tensor.shape_string(), tensor);
  save_safetensors(folder.path("ranks"), named);
  const SafetensorsFile file(folder.path("ranks"));
  for (const Tensor& tensor : tensors) expect_same(file.read(tensor.shape_string()), tensor);
}

TEST(Safetensors, KeepsEveryBitOfSpecialValues) {
  const TestFolder folder;
  const float values[] = {std::nanf("7"), -std::numeric_limits<float>::infinity(), -0.0f,
                          std::numeric_limits<float>::denorm_min(), 1.0f};
  save_safetensors(folder.path("f"), {{"w", ConstTensorView(values, {5})}});
  const Tensor read = SafetensorsFile(folder.path("f")).read("w");
  EXPECT_EQ(std::memcmp(read.data(), values, sizeof values), 0);
}

TEST(Safetensors, WritesStridedViewsRowMajor) {
  const TestFolder folder;
  const Tensor tensor = counting(DType::kInt32, {3, 4, 5});
  const ConstTensorView view = tensor.view().transposed(0, 2).narrow(1, 1, 2);
  save_safetensors(folder.path("t"), {{"w", view}});
  expect_same(SafetensorsFile(folder.path("t")).read("w"), Tensor(view));
}

TEST(Safetensors, ReadsAnUnalignedStart) {
  const TestFolder folder;
  const std::string json =
      "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
      "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}";
  const std::string bytes = safetensors_bytes(json) + "\x01\0\0\x80\x3f"s;
  EXPECT_EQ(SafetensorsFile(folder.write("u", bytes)).read("w").data_as<float>()[0], 1.0f);
}

TEST(Safetensors, WidensHalvesOnly) {
  const TestFolder folder;
  const uint16_t halves[] = {0x3c00, 0xc000};   // 1, -2 in float16
  const uint16_t bfloats[] = {0x3f80, 0xc000};  // 1, -2 in bfloat16
  const int64_t pair[] = {2};
  save_safetensors(folder.path("h"), {{"half", ConstTensorView(halves, DType::kFloat16, pair)},
                                      {"bfloat", ConstTensorView(bfloats, DType::kBFloat16, pair)},
                                      {"int", Tensor(DType::kInt32, {2})}});
  const SafetensorsFile file(folder.path("h"));
  for (const char* name : {"half", "bfloat"}) {
    const Tensor wide = file.read_widened(name);
    EXPECT_EQ(wide.data_as<float>()[0], 1.0f);
    EXPECT_EQ(wide.data_as<float>()[1], -2.0f);
  }
  EXPECT_EQ(file.read_widened("int").dtype(), DType::kInt32);
  EXPECT_EQ(file.read("half").dtype(), DType::kFloat16);
}

TEST(Safetensors, RefusesToReadWhatItCannotHold) {
  const TestFolder folder;
  const std::string json =
      "{\"b\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]},"
      "\"c\":{\"dtype\":\"C64\",\"shape\":[0],\"data_offsets\":[2,2]},"
      "\"r\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,0],\"data_offsets\":[2,2]}}";
  const SafetensorsFile file(folder.write("x", safetensors_bytes(json) + "\x01\x02"));
  const auto read = [&](const char* name) { return [&file, name] { file.read(name); }; };
  expect_refused<IoError>(read("b"),
                          {file.path(), "tensor \"b\": data: bool element 1 is 2; need 0 or 1"});
  expect_refused<Unsupported>(read("c"), {file.path(), "tensor \"c\": dtype: is C64; need F32"});
  expect_refused<Unsupported>(read("r"), {"tensor \"r\": shape: has 9 dimensions; need at most 8"});
  expect_refused<InvalidArgument>(read("\x1b"), {"tensor \"\\x1b\": is not there"});
}

TEST(SafetensorsWriter, PadsTheHeader) {
  const Tensor tensor(DType::kFloat32, {2});
  const std::string header = plan_safetensors("x", {{"w", tensor}}, {}).header;
  EXPECT_EQ(header.size() % 8, 0u);
  EXPECT_EQ(header.substr(0, 8), little_endian(header.size() - 8, 8));
  EXPECT_EQ(header.substr(8, 57),
            "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}  ");
}

TEST(SafetensorsWriter, RefusesWhatAReaderWould) {
  const TestFolder folder;
  const std::string path = folder.path("never");
  const Tensor tensor(DType::kFloat32, {1});
  const auto save = [&](const std::string& name) {
    return [&path, &tensor, name] { save_safetensors(path, {{name, tensor}}); };
  };
  expect_refused<InvalidArgument>(save(""), {path, "name: need one that is not reserved"});
  expect_refused<InvalidArgument>(save("__metadata__"), {"not reserved"});
  expect_refused<InvalidArgument>(save(std::string(4097, 'x')), {"name: is too long"});
  expect_refused<InvalidArgument>(save("\xff"), {"tensor \"\\xff\": name: is not UTF-8"});
  expect_refused<InvalidArgument>(save("a\nb"), {"tensor \"a\\nb\": name: holds a control"});
  expect_refused<InvalidArgument>([&] { save_safetensors(path, {{"a", tensor}, {"a", tensor}}); },
                                  {"tensor \"a\": name: is given twice"});
  expect_refused<InvalidArgument>([&] { save_safetensors(path, {{"a", ConstTensorView()}}); },
                                  {"tensor \"a\": is not defined"});
  expect_refused<InvalidArgument>([&] { save_safetensors(path, {}, {{"k", "\xff"}}); },
                                  {"metadata: \"k\": is not UTF-8"});
  EXPECT_EQ(folder.file_count(), 0u);
}

}  // namespace
}  // namespace polyhead
