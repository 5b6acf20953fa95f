#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <polyhead/io.h>
#include "io/elements.h"
#include "io/test_files.h"

namespace polyhead {
namespace {

using std::string_literals::operator""s;

std::string dict(const std::string& descr, const std::string& shape,
                 const std::string& order = "False") {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

struct BadFile {
  std::string name, bytes;
  std::vector<std::string> parts;  // of the message
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class NpyRefuses : public testing::TestWithParam<BadFile> {};

TEST_P(NpyRefuses, WithTheReason) {
  const TestFolder folder;
  const std::string path = folder.write("bad.npy", GetParam().bytes);
  std::vector<std::string> parts = GetParam().parts;
  parts.insert(parts.begin(), "load_npy: " + path + ": ");
  expect_refused<IoError>([&] { load_npy(path); }, parts);
}

BadFile header(const std::string& name, const std::string& text, const std::string& part,
               size_t data_bytes = 0) {
  return {name, npy_bytes(text, data_bytes), {part}};
}

BadFile shape(const std::string& name, const std::string& text, const std::string& part,
              size_t data_bytes = 0) {
  return header(name, dict("'<f4'", text), part, data_bytes);
}

BadFile start(const std::string& name, const std::string& bytes, const std::string& part) {
  return {name, bytes, {part}};
}

INSTANTIATE_TEST_SUITE_P(
    Prefix, NpyRefuses,
    testing::Values(
        start("Empty", "", "0 bytes; truncated"),
        start("HalfMagic", "\x93NU", "3 bytes; truncated within the header (incomplete download?)"),
        start("BadMagic", "\x93NUMPX\1\0..........", "begin with \"\\x93NUMPY\""),
        start("Version9", "\x93NUMPY\x09\x00\x10\x00................"s, "version is 9.0; need 1.0"),
        start("Version1Minor", "\x93NUMPY\x01\x01\x10\x00..............."s, "version is 1.1"),
        start("FourGibibyteHeader", "\x93NUMPY\x02\x00\xff\xff\xff\xff{}\n"s,
              "length is 4294967295; need at most 10000"),
        start("LongHeader", npy_bytes("{"s + std::string(10'000, ' ') + "}"),
              "header: length is 10003; need at most 10000"),
        start("TruncatedHeader", "\x93NUMPY\x01\x00\x76\x00{'descr"s,
              "length is 118 but only 7 bytes follow; truncated (incomplete download?)"),
        start("NoNewline", "\x93NUMPY\x01\x00\x02\x00{}"s, "does not end in a newline"),
        start("Zip", "PK\3\4..........", "zip archive"), start("Pickle", "\x80\4......", "pickle"),
        start("Json", "{\"a\": 1}", "JSON file"),
        start("Safetensors", safetensors_bytes("{}"), "begin with \"\\x93NUMPY\"")),
    testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(
    Dict, NpyRefuses,
    testing::Values(
        header("Empty", "", "found its end at its byte 1; need '{'"),
        header("MissingDescr", "{'fortran_order': False, 'shape': ()}", "descr: is missing"),
        header("MissingOrder", "{'descr': '<f4', 'shape': ()}", "fortran_order: is missing"),
        header("MissingShape", "{'descr': '<f4', 'fortran_order': False}", "shape: is missing"),
        header("ExtraField", "{'descr': '<f4', 'x': 1}", "field \"x\" is unknown"),
        header("HostileField", "{'\x1b[2J': 1}", "field \"\\x1b[2J\" is unknown"),
        header("Duplicate", "{'descr': '<f4', 'descr': '<f8'}", "descr: appears twice"),
        header("Parentheses", "{'shape': "s + std::string(9'000, '('), "shape: need whole numbers"),
        header("Brackets", std::string(9'000, '['), "need '{'"),
        header("Unclosed", "{'shape': (1, 2)", "need '}'"),
        header("TextAfter", dict("'<f4'", "()") + " 7", "need only blanks after the dict"),
        header("NulAfter", dict("'<f4'", "()") + "\0"s, "need only blanks after the dict"),
        header("Expression", "{'shape': (2*3,)}", "found \"*3,)}\\n\""),
        header("Call", "{'shape': f()}", "need '(' for the shape"),
        header("EscapedString", "{'de\\x73cr': '<f4'}", "need a string without escapes"),
        header("OpenString", "{'descr", "need the closing quote"),
        header("OrderNumber", dict("'<f4'", "()", "0"), "fortran_order: need True or False"),
        header("OrderLower", dict("'<f4'", "()", "false"), "fortran_order: need True or False"),
        header("OrderLonger", dict("'<f4'", "()", "Falsey"), "need '}'"),
        header("Object", dict("'|O'", "(1,)"), "object array: pickled Python", 8),
        header("OrderOfBool", dict("'<b1'", "(1,)"), "byte order of \"<b1\" is '<'; need one of |",
               1),
        header("NoOrder", dict("'=f4'", "(1,)"), "byte order of \"=f4\"", 4)),
    testing::PrintToStringParamName());

std::string ones(int rank) {
  std::string text;
  for (int i = 0; i < rank; ++i) text += "1, ";
  return text;
}

INSTANTIATE_TEST_SUITE_P(
    Shape, NpyRefuses,
    testing::Values(
        shape("Negative", "(-4,)", "shape: need whole numbers"),
        shape("Bool", "(True,)", "shape: need whole numbers"),
        shape("Python2Long", "(2L,)", "found \"L,)", 8),
        shape("Fraction", "(2.0,)", "shape: need ',' or ')'", 8),
        shape("LeadingZero", "(02,)", "leading zeros", 8),
        shape("NotATuple", "(2)", "shape: need a tuple", 8),
        shape("List", "[2]", "need '(' for the shape", 8),
        shape("OnlyComma", "(,)", "shape: need whole numbers", 8),
        shape("TwoTo63", "(9223372036854775808,)", "element 0 is above 2^63 - 1"),
        shape("Wraps", "(4294967296, 4294967296)", "more elements than"),
        shape("WrapsWithZero", "(0, 4294967296, 4294967296)", "more elements than"),
        shape("SixtyFive", "("s + ones(65) + ")", "more than 64 dimensions", 4),
        shape("TenToThe13", "(10000000000000,)",
              "data: has 4 bytes; shape and dtype need 40000000000000; truncated (incomplete", 4),
        shape("Truncated", "(2, 3)", "data: has 23 bytes; shape and dtype need 24; truncated", 23),
        shape("Trailing", "(2, 3)", "data: has 25 bytes; shape and dtype need 24 and nothing", 25),
        shape("ScalarWithout", "()", "data: has 0 bytes; shape and dtype need 4; truncated")),
    testing::PrintToStringParamName());

TEST(Npy, SaysWhatItDoesNotHold) {
  const TestFolder folder;
  const auto load = [&](const std::string& text, size_t data_bytes = 0) {
    return [path = folder.write("x.npy", npy_bytes(text, data_bytes))] { load_npy(path); };
  };
  expect_refused<Unsupported>(load(dict("[('a', '<f4')]", "()")), {"x.npy", "structured dtype"});
  expect_refused<Unsupported>(load(dict("'<c8'", "()"), 8), {"descr: is \"<c8\"; need one of"});
  expect_refused<Unsupported>(load(dict("''", "()"), 8), {"descr: is \"\""});
  expect_refused<Unsupported>(load(dict("'<f4'", "(1,1,1,1,1,1,1,1,1)"), 4),
                              {"shape: has 9 dimensions; need at most 8"});
  const int64_t one[] = {1};
  const uint16_t bits[] = {0};
  const ConstTensorView bfloat(bits, DType::kBFloat16, one);
  expect_refused<Unsupported>([&] { save_npy(folder.path("y"), bfloat); }, {"bfloat16"});
  expect_refused<InvalidArgument>([&] { save_npy(folder.path("y"), {}); }, {"not defined"});
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(Npy, RefusesABoolThatIsNone) {
  const TestFolder folder;
  const std::string path = folder.write("b.npy", npy_bytes(dict("'|b1'", "(2,)")) + "\x01\x02");
  expect_refused<IoError>([&] { load_npy(path); }, {path, "data: bool element 1 is 2"});
}

TEST(Npy, RefusesATruncatedFileAtEveryByte) {
  const TestFolder folder;
  const std::string sound = npy_bytes(dict("'<f8'", "(2, 1)"), 16);
  for (size_t bytes = 0; bytes < sound.size(); ++bytes) {
    const std::string path = folder.write("cut.npy", sound.substr(0, bytes));
    expect_refused<IoError>([&] { load_npy(path); }, {path, "truncated", "(incomplete download?)"});
  }
}

// The dict itself cut short, under a length that fits.
TEST(Npy, RefusesADictCutAnywhere) {
  const TestFolder folder;
  const std::string sound = dict("'<f8'", "(2, 1)");
  for (size_t bytes = 0; bytes < sound.size(); ++bytes) {
    const std::string path = folder.write("cut.npy", npy_bytes(sound.substr(0, bytes), 16));
    expect_refused<IoError>([&] { load_npy(path); }, {path, "header: found "});
  }
}

TEST(Npy, TellsHowToUnpackAnArchive) {
  const TestFolder folder;
  const std::string path = folder.write("dir.x.npz", "PK\3\4......");
  expect_refused<IoError>([&] { load_npy(path); },
                          {path, ".npz archive", "numpy.save(\"" + folder.path("dir.x.npy") + "\"",
                           "numpy.load(\"" + path + "\")[NAME]"});
}

template <class T>
void expect_round_trip(const std::vector<T>& values, std::initializer_list<int64_t> sizes) {
  const TestFolder folder;
  Tensor tensor(dtype_of<T>(), sizes);
  std::copy(values.begin(), values.end(), tensor.data_as<T>());
  save_npy(folder.path("t.npy"), tensor);
  const Tensor read = load_npy(folder.path("t.npy"));
  EXPECT_EQ(read.shape_string(), tensor.shape_string());
  EXPECT_EQ(std::vector<T>(read.data_as<T>(), read.data_as<T>() + read.numel()), values);
}

TEST(Npy, RoundTrips) {
  expect_round_trip<float>({1, -2, 3, 4, 5, 6}, {2, 3});
  expect_round_trip<double>({0.5}, {});
  expect_round_trip<int32_t>({}, {0, 3});
  expect_round_trip<int64_t>({7, 8}, {1, 1, 2, 1, 1, 1, 1, 1});
  expect_round_trip<bool>({true, false, true}, {3});
}

TEST(Npy, WritesWhatNumpyWrites) {
  const TestFolder folder;
  const float values[] = {1, 2, 3, 4, 5, 6};
  save_npy(folder.path("t"), ConstTensorView(values, {3, 2}).transposed(0, 1));
  const std::string bytes = file_bytes(folder.path("t"));
  const std::string text = dict("'<f4'", "(2, 3)");
  EXPECT_EQ(bytes.substr(0, 10 + text.size()), "\x93NUMPY\x01\x00\x76\x00"s + text);
  ASSERT_EQ(bytes.size(), 128u + 24);
  EXPECT_EQ(bytes[127], '\n');
  EXPECT_EQ(bytes.substr(128 + 4, 4), "\0\0\x40\x40"s);  // row-major: 1, 3, 5, then 2, 4, 6
}

TEST(Npy, ConvertsByteOrderAndFortranOrder) {
  const TestFolder folder;
  const std::string big = npy_bytes(dict("'>i4'", "(2,)")) + "\0\0\0\1\0\0\0\2"s;
  EXPECT_EQ(load_npy(folder.write("b", big)).data_as<int32_t>()[1], 2);
  // [[1, 3, 5], [2, 4, 6]] column by column
  const std::string fortran = npy_bytes(dict("'<i8'", "(2, 3)", "True")) + little_endian(1, 8) +
                              little_endian(2, 8) + little_endian(3, 8) + little_endian(4, 8) +
                              little_endian(5, 8) + little_endian(6, 8);
  const Tensor read = load_npy(folder.write("f", fortran));
  const int64_t* elements = read.data_as<int64_t>();
  EXPECT_EQ(std::vector<int64_t>(elements, elements + 6), (std::vector<int64_t>{1, 3, 5, 2, 4, 6}));
}

TEST(Npy, AcceptsOtherSpellings) {
  const TestFolder folder;
  for (const char* text :
       {"{\"shape\":(2,1),\"fortran_order\":False,\"descr\":\"<f4\"}   ",
        "{ 'descr' : '<f4' ,'fortran_order':False , 'shape' : ( 2 , 1 , ) , }"}) {
    EXPECT_EQ(load_npy(folder.write("s", npy_bytes(text, 8))).shape_string(), "[2, 1]");
  }
  const std::string text = dict("'<f4'", "()") + "\n";
  for (const char version : {'\2', '\3'}) {
    const std::string bytes = "\x93NUMPY"s + version + '\0' + little_endian(text.size(), 4) + text;
    EXPECT_EQ(load_npy(folder.write("v", bytes + "\0\0\0\0"s)).rank(), 0);
  }
}

}  // namespace
}  // namespace polyhead
