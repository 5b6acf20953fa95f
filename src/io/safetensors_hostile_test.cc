// Files that must be refused, each with a line that names the file, the tensor and the reason.
#include <fcntl.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include <polyhead/io.h>
#include "io/test_files.h"

namespace polyhead {
namespace {

using std::string_literals::operator""s;

std::string repeated(const std::string& part, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += part;
  return text;
}

struct BadFile {
  std::string name, bytes;
  std::vector<std::string> parts;  // of the message
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

class SafetensorsRefuses : public testing::TestWithParam<BadFile> {};

TEST_P(SafetensorsRefuses, WithTheReason) {
  const TestFolder folder;
  const std::string path = folder.write("bad.safetensors", GetParam().bytes);
  std::vector<std::string> parts = GetParam().parts;
  parts.insert(parts.begin(), "SafetensorsFile: " + path + ": ");
  expect_refused<IoError>([&] { SafetensorsFile file(path); }, parts);
}

BadFile json(const std::string& name, const std::string& text, const std::string& part,
             size_t data_bytes = 0) {
  return {name, safetensors_bytes(text, data_bytes), {part}};
}

// One tensor "w" of such dtype, shape and data_offsets.
BadFile entry(const std::string& name, const std::string& dtype, const std::string& shape,
              const std::string& offsets, const std::string& part, size_t data_bytes = 0) {
  const std::string text =
      "{\"w\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  return {name, safetensors_bytes(text, data_bytes), {"tensor \"w\": ", part}};
}

BadFile length(const std::string& name, uint64_t n, const std::string& part) {
  return {name, little_endian(n, 8) + "{}", {"header length is " + std::to_string(n), part}};
}

INSTANTIATE_TEST_SUITE_P(
    LengthField, SafetensorsRefuses,
    testing::Values(
        BadFile{"Empty", "", {"0 bytes", "incomplete download?"}},
        BadFile{"SevenBytes", std::string(7, '\0'), {"7 bytes", "at least 8", "incomplete"}},
        BadFile{"OnlyLength", little_endian(2, 8), {"only 0 bytes follow", "incomplete download?"}},
        length("Zero", 0, "at least 2"), length("One", 1, "at least 2"),
        length("AboveFile", 3, "only 2 bytes follow; truncated (incomplete download?)"),
        length("AboveLimit", 100'000'001, "at most 100000000"),
        length("AtLimitAboveFile", 100'000'000, "truncated"),
        length("TwoTo63", uint64_t{1} << 63, "at most"), length("Maximum", ~uint64_t{0}, "at most"),
        length("WrapsWithLengthField", ~uint64_t{0} - 7, "at most")),
    testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(
    OtherKinds, SafetensorsRefuses,
    testing::Values(BadFile{"Zip",
                            "PK\3\4\0\0\x8\x8..........."s,
                            {"zip archive", "weights_only=True", "save_file(torch.load(\"",
                             "bad.converted.safetensors\", metadata={\"num_heads\": \"H\"})"}},
                    BadFile{"Pickle",
                            "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8"s,
                            {"pickle", "weights_only=True"}},
                    BadFile{"ShardedIndex",
                            "{\"metadata\": {}, \"weight_map\": {\"w\": \"../x\"}}",
                            {"JSON", "weight_map", "merge the shards", "load_file, save_file"}},
                    BadFile{"Gguf", "GGUF\3\0\0\0............"s, {"GGUF", "export"}},
                    BadFile{"Npy", npy_bytes("{}"), {"npy file"}},
                    BadFile{
                        "LfsPointer", "version https://git-lfs...", {"Git LFS", "git lfs pull"}},
                    BadFile{"WebPage", "<!DOCTYPE html>......", {"web page"}},
                    BadFile{"ShortPickle", "\x80\4\x95"s, {"pickle"}},
                    BadFile{"OtherHighByte", "\x80\x39......"s, {"header length is"}},
                    BadFile{"Hdf5", "\x89HDF\r\n\x1a\n........", {"HDF5"}}),
    testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(
    Json, SafetensorsRefuses,
    testing::Values(
        json("ByteOrderMark", "\xef\xbb\xbf{}", "begins with \"\\xef\"; need \"{\""),
        json("LeadingBlank", " {}", "begins with \" \""),
        json("LeadingNewline", "\n{}", "begins with \"\\n\""),
        json("ArrayRoot", "[{}]", "begins with \"[\""), json("NullRoot", "null", "begins with"),
        json("NumberRoot", "12", "begins with"), json("NulPadding", "{}\0\0\0"s, "NUL at byte 2"),
        json("NulInside", "{\0}"s, "NUL at byte 1"),
        json("TrailingNewline", "{}\n", "ends with \"\\n\"; need \"}\", then spaces only"),
        json("TrailingTab", "{} \t ", "ends with \"\\t\""),
        json("TwoDocuments", "{}{}", "not valid JSON at its byte 3"),
        json("DocumentAndText", "{} x", "not valid JSON"), json("Unclosed", "{ ", "not valid JSON"),
        json("UnclosedString", "{\"a", "not valid JSON"),
        json("TrailingComma", "{\"w\":{\"dtype\":\"F32\",}}", "not valid JSON"),
        json("Comment", "{/**/}", "not valid JSON"), json("SingleQuotes", "{'a':1}", "not valid"),
        json("InvalidUtf8", "{\"\xff\":1}", "not valid JSON at its byte 3"),
        json("LoneSurrogate", "{\"\\ud800\":1}", "not valid JSON"),
        json("RawControl", "{\"\x1b[2J\":1}", "not valid JSON"),
        json("DeepArrays", "{\"w\":" + std::string(1'000'000, '['), "got an array"),
        json("HugeKey", "{\"" + std::string(1 << 20, 'k') + "\":{}}", "is 1048576 bytes"),
        json("Escapes", "{\"" + repeated("\\n", 1'000'000) + "\":{}}",
             "name: is 1000000 bytes; need at most 4096"),
        json("DeepObjects", repeated("{\"a\":", 100'000), "field \"a\" is unknown")),
    testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(
    Entries, SafetensorsRefuses,
    testing::Values(
        json("NotAnObject", "{\"w\":3}", "tensor \"w\": got 3; need an object"),
        json("NullEntry", "{\"w\":null}", "tensor \"w\": got null"),
        json("StringEntry", "{\"w\":\"F32\"}", "tensor \"w\": got a string"),
        json("MissingAll", "{\"w\":{}}", "tensor \"w\": dtype: is missing"),
        json("MissingDtype", "{\"w\":{\"shape\":[0],\"data_offsets\":[0,0]}}", "dtype: is missing"),
        json("MissingShape", "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,0]}}",
             "shape: is missing"),
        json("MissingOffsets", "{\"w\":{\"dtype\":\"F32\",\"shape\":[0]}}",
             "data_offsets: is missing"),
        json("ExtraField",
             "{\"w\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}",
             "tensor \"w\": field \"x\" is unknown"),
        json("DuplicateField", "{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}",
             "tensor \"w\": dtype: appears twice"),
        entry("UnknownDtype", "\"F33\"", "[1]", "[0,4]", "dtype: got \"F33\"; need one", 4),
        entry("LowerCaseDtype", "\"f32\"", "[1]", "[0,4]", "dtype: got \"f32\"", 4),
        entry("NumberDtype", "32", "[1]", "[0,4]", "dtype: got 32; need a string", 4),
        entry("ArrayDtype", "[]", "[1]", "[0,4]", "dtype: got an array; need a string", 4),
        entry("NullDtype", "null", "[1]", "[0,4]", "dtype: got null", 4),
        entry("ShapeNumber", "\"F32\"", "4", "[0,4]", "shape: got 4; need an array", 4),
        entry("ShapeObject", "\"F32\"", "{}", "[0,4]", "shape: got an object; need an array"),
        entry("ShapeNested", "\"F32\"", "[[1]]", "[0,4]", "shape: element 0 is an array"),
        entry("ShapeString", "\"F32\"", "[\"1\"]", "[0,4]", "shape: element 0 is a string"),
        entry("ShapeBool", "\"F32\"", "[1,true]", "[0,4]", "shape: element 1 is true"),
        entry("ShapeNull", "\"F32\"", "[null]", "[0,4]", "shape: element 0 is null"),
        entry("Negative", "\"F32\"", "[-4]", "[0,4]", "element 0 is -4; need a whole number"),
        entry("MinusZero", "\"F32\"", "[-0]", "[0,0]", "shape: element 0 is -0; need a whole"),
        entry("Fraction", "\"F32\"", "[4.5]", "[0,4]", "element 0 is 4.5"),
        entry("WholeFraction", "\"F32\"", "[4.0]", "[0,16]", "element 0 is 4.0", 16),
        entry("Exponent", "\"F32\"", "[4e0]", "[0,16]", "element 0 is 4e0", 16),
        json("LeadingZero", "{\"w\":{\"dtype\":\"F32\",\"shape\":[04]}}", "not valid JSON"),
        entry("TwoTo64", "\"F32\"", "[18446744073709551616]", "[0,0]",
              "element 0 is 18446744073709551616"),
        entry("TwoTo63", "\"F32\"", "[9223372036854775808]", "[0,0]",
              "element 0 is 9223372036854775808"),
        json("Huge", "{\"w\":{\"shape\":[1e999]}}", "not valid JSON at its byte 20"),
        entry("ManyDimensions", "\"F32\"", "[1" + repeated(",1", 999'999) + "]", "[0,4]",
              "more than 64 dimensions", 4)),
    testing::PrintToStringParamName());

INSTANTIATE_TEST_SUITE_P(
    Offsets, SafetensorsRefuses,
    testing::Values(
        entry("None", "\"F32\"", "[1]", "[]", "data_offsets: has 0 numbers; need [begin, end]", 4),
        entry("One", "\"F32\"", "[1]", "[0]", "data_offsets: has 1 numbers", 4),
        entry("Three", "\"F32\"", "[1]", "[0,4,4]", "data_offsets: has more than 2 numbers", 4),
        entry("NotAnArray", "\"F32\"", "[1]", "4", "data_offsets: got 4; need an array", 4),
        entry("Negative", "\"F32\"", "[1]", "[-4,0]", "data_offsets: element 0 is -4", 4),
        entry("Fraction", "\"F32\"", "[1]", "[0,4.0]", "data_offsets: element 1 is 4.0", 4),
        entry("BeginAboveEnd", "\"F32\"", "[1]", "[4,0]", "are [4, 0]; begin must not", 4),
        entry("EndAboveFile", "\"F32\"", "[2]", "[0,8]",
              "are [0, 8] but only 4 bytes follow the header; truncated (incomplete download?)", 4),
        entry("TooFewBytes", "\"F32\"", "[2]", "[0,4]", "4 bytes; shape and dtype F32 need 8", 4),
        entry("TooManyBytes", "\"F32\"", "[1]", "[0,8]", "8 bytes; shape and dtype F32 need 4", 8),
        entry("Scalar", "\"F32\"", "[]", "[0,0]", "0 bytes; shape and dtype F32 need 4"),
        entry("WrapsToZero", "\"F32\"", "[4294967296,4294967296]", "[0,0]", "more elements than"),
        entry("WrapsToOne", "\"U8\"", "[274177,67280421310721]", "[0,1]", "more elements than", 1),
        entry("WrapsInBits", "\"F64\"", "[2305843009213693952]", "[0,0]", "more elements than"),
        entry("HugeBesideZero", "\"F32\"", "[0,1000000000000000000]", "[0,0]",
              "its sizes other than 0 make more elements than"),
        entry("ZeroFirst", "\"U8\"", "[0,4611686018427387904,4]", "[0,0]", "more elements than"),
        entry("ZeroLast", "\"U8\"", "[4611686018427387904,4,0]", "[0,0]", "more elements than"),
        entry("ZeroThenTwoTo63", "\"U8\"", "[0,9223372036854775808,9223372036854775808]", "[0,0]",
              "shape: element 1 is 9223372036854775808"),
        entry("HalfByte", "\"F4\"", "[3]", "[0,1]", "takes 12 bits of F4; need whole bytes", 1),
        entry("Gap", "\"F32\"", "[1]", "[4,8]", "begins at 4, a gap after the start", 8),
        json("Trailing", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
             "data: 5 bytes follow the header; the tensors take 4", 5),
        json("DataWithoutTensors", "{}", "data: 8 bytes follow the header; the tensors take 0", 8),
        json("Overlap",
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
             "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
             "tensor \"b\": data_offsets: begins at 2, an overlap with tensor \"a\"; need 4", 6),
        json("SameRange",
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
             "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
             "tensor \"b\": data_offsets: begins at 0, an overlap with tensor \"a\"", 4),
        json("GapBetween",
             "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[3,4]},"
             "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
             "tensor \"b\": data_offsets: begins at 3, a gap after tensor \"a\"; need 2", 4),
        json("EmptyTensorInside",
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
             "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}",
             "tensor \"b\": data_offsets: begins at 2, an overlap", 4)),
    testing::PrintToStringParamName());

BadFile named(const std::string& test, const std::string& name, const std::string& part) {
  return json(test, "{\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
              part);
}

std::string metadata_flood() {
  std::string text = "{\"__metadata__\":{\"\":\"\"";
  for (int i = 0; i < 65'536; ++i) text += ",\"" + std::to_string(i) + "\":\"\"";
  return text + "}}";
}

INSTANTIATE_TEST_SUITE_P(
    Names, SafetensorsRefuses,
    testing::Values(
        named("Empty", "", "tensor \"\": name: is empty"),
        named("Nul", "a\\u0000b", "tensor \"a\\x00b\": name: holds a control character"),
        named("AnsiEscape", "\\u001b[2J", "tensor \"\\x1b[2J\": name: holds a control"),
        named("C1Escape", "\\u009b31m", "tensor \"\\u009b31m\": name: holds a control"),
        named("Newline", "a\\nb", "tensor \"a\\nb\": name: holds a control character"),
        named("TooLong", std::string(4097, 'x'), "name: is 4097 bytes; need at most 4096"),
        named("MetadataAsTensor", "__metadata__", "__metadata__: \"shape\": got an array; need a"),
        json("RightToLeft", "{\"\\u202egnp.exe\":1}", "tensor \"\\u202egnp.exe\": got 1"),
        json("Script", "{\"</script>\":1}", "tensor \"</script>\": got 1"),
        json("Duplicate",
             "{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
             "\"\\u0061\":{\"dtype\":\"I32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
             "tensor \"a\": name: appears twice"),
        json("MetadataNull", "{\"__metadata__\":null}", "__metadata__: got null; need an object"),
        json("MetadataArray", "{\"__metadata__\":[]}", "__metadata__: got an array"),
        json("MetadataNested", "{\"__metadata__\":{\"a\":{}}}", "\"a\": got an object; need a str"),
        json("MetadataNumber", "{\"__metadata__\":{\"a\":1}}", "\"a\": got 1; need a string"),
        json("MetadataNullValue", "{\"__metadata__\":{\"a\":null}}", "\"a\": got null"),
        json("MetadataTwice", "{\"__metadata__\":{},\"__metadata__\":{}}", "appears twice"),
        json("MetadataDuplicate", "{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}",
             "__metadata__: \"a\": appears twice"),
        json("MetadataFlood", metadata_flood(), "__metadata__: has more than 65536 entries")),
    testing::PrintToStringParamName());

const std::string kSoundFile = safetensors_bytes(
    "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"BOOL\",\"shape\":[2,1],"
    "\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[2,6]}}",
    6);

TEST(SafetensorsTruncated, IsRefusedAtEveryByte) {
  const TestFolder folder;
  for (size_t bytes = 0; bytes < kSoundFile.size(); ++bytes) {
    const std::string path = folder.write("cut", kSoundFile.substr(0, bytes));
    expect_refused<IoError>([&] { SafetensorsFile file(path); }, {path, "(incomplete download?)"});
  }
}

// Whatever one wrong bit does, the file is refused with an exception of ours, or read.
TEST(SafetensorsDamaged, IsSafeForEveryBit) {
  const TestFolder folder;
  int accepted = 0;
  for (size_t bit = 0; bit < kSoundFile.size() * 8; ++bit) {
    std::string bytes = kSoundFile;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    const std::string path = folder.write("flipped", bytes);
    try {
      const SafetensorsFile file(path);
      for (const auto& entry : file.entries()) file.read(entry.name);
      ++accepted;
    } catch (const IoError&) {
    } catch (const Unsupported&) {  // F32 may become a dtype that we do not hold
    }
  }
  EXPECT_GT(accepted, 32);  // names, metadata and the values of "b" are free
  EXPECT_LT(accepted, 100);
}

TEST(SafetensorsAccepts, WhatIsUnusualButSound) {
  const TestFolder folder;
  const std::string one = "{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[";
  const std::string names[] = {"../../etc/x", "\\u202egnp.exe", "</script>", "gr\xc3\xbc\xc3\x9f"};
  for (const std::string& name : names) {
    const std::string text = "{\"" + name + "\":" + one + "0,4]}}";
    EXPECT_EQ(SafetensorsFile(folder.write("a", safetensors_bytes(text, 4))).entries().size(), 1u);
  }
  EXPECT_EQ(SafetensorsFile(folder.write("b", safetensors_bytes("{}"))).entries().size(), 0u);
  EXPECT_EQ(SafetensorsFile(folder.write("b", safetensors_bytes("{\n}   "))).entries().size(), 0u);
  const SafetensorsFile reversed(
      folder.write("c", safetensors_bytes("{\"z\":" + one + "4,8]},\"a\":" + one + "0,4]}}", 8)));
  EXPECT_EQ(reversed.entries()[0].name, "z");
  EXPECT_EQ(reversed.find("a")->end, 4);
}

TEST(SafetensorsAccepts, ManyTensorsOfNoSize) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) {
    text += (i ? ",\"t" : "\"t") + std::to_string(i) +
            "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}";
  }
  const TestFolder folder;
  const SafetensorsFile file(folder.write("many", safetensors_bytes(text + "}")));
  EXPECT_EQ(file.entries().size(), 100'000u);
  EXPECT_EQ(file.find("t99999"), &file.entries()[99'999]);
}

TEST(SafetensorsLimit, CanBeLowered) {
  const TestFolder folder;
  const std::string path = folder.write("a", safetensors_bytes("{}      "));
  EXPECT_NO_THROW(SafetensorsFile(path, {.max_header_bytes = 8}));
  expect_refused<IoError>([&] { SafetensorsFile(path, {.max_header_bytes = 7}); },
                          {path, "header length is 8; need at most 7"});
  expect_refused<IoError>([&] { SafetensorsFile(path, {.max_header_bytes = -1}); }, {"at most 0"});
}

// A header of exactly the specification's limit, mostly blanks: a sparse file would hold NULs.
TEST(SafetensorsLimit, IsTheSpecifications) {
  constexpr size_t kLimit = 100'000'000;
  const TestFolder folder;
  std::string text(kLimit, ' ');
  text.front() = '{';
  text.back() = '}';
  EXPECT_NO_THROW(SafetensorsFile(folder.write("a", safetensors_bytes(text))));
  expect_refused<IoError>(
      [&] { SafetensorsFile(folder.write("a", safetensors_bytes(text + " "))); },
      {"header length is 100000001; need at most 100000000"});
}

// Offsets above 32 bits, in a sparse file.
TEST(SafetensorsLimit, ReadsBeyondFourGibibytes) {
  const TestFolder folder;
  const std::string text =
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[5000000000],\"data_offsets\":[0,5000000000]},"
      "\"b\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[5000000000,5000000004]}}";
  const std::string path = folder.write("sparse", safetensors_bytes(text));
  const auto size = static_cast<off_t>(8 + text.size() + 5'000'000'000);
  ASSERT_EQ(::truncate(path.c_str(), size), 0);
  std::ofstream(path, std::ios::binary | std::ios::app) << little_endian(123456, 4);
  EXPECT_EQ(SafetensorsFile(path).read("b").data_as<int32_t>()[0], 123456);
}

TEST(SafetensorsFileSystem, RefusesWhatIsNotARegularFile) {
  const TestFolder folder;
  const std::string fifo = folder.path("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const auto open = [](const std::string& path) { return [path] { SafetensorsFile file(path); }; };
  expect_refused<IoError>(open(fifo), {fifo, "is a FIFO; need a regular file"});
  expect_refused<IoError>(open(folder.path("")), {"is a directory"});
  expect_refused<IoError>(open("/dev/zero"), {"/dev/zero", "is a device"});
  expect_refused<IoError>(open("/proc/self/maps"), {"/proc/self/maps", "0 bytes"});
  expect_refused<IoError>(open(folder.path("absent")), {"absent", "No such file or directory"});
  expect_refused<IoError>(open("a\0b"s), {"a\\x00b", "NUL byte in the path"});
  expect_refused<IoError>(open(folder.path("\x1b[2J")), {"\\x1b[2J"});
}

TEST(SafetensorsFileSystem, FollowsASymlink) {
  const TestFolder folder;
  const std::string target = folder.write("a", safetensors_bytes("{}"));
  std::filesystem::create_symlink(target, folder.path("link"));
  EXPECT_NO_THROW(SafetensorsFile(folder.path("link")));
}

TEST(SafetensorsFileSystem, NoticesAChangeAfterOpening) {
  const TestFolder folder;
  const std::string bytes =
      safetensors_bytes("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
  const auto read_after = [&](const auto& change) {
    return [&folder, &bytes, change] {
      const SafetensorsFile file(folder.write("changing", bytes));
      change(file.path());
      file.read("w");
    };
  };
  const auto shorten = [&](const std::string& path) {
    std::filesystem::resize_file(path, bytes.size() - 1);
  };
  const auto lengthen = [](const std::string& path) { std::filesystem::resize_file(path, 99); };
  const auto touch = [](const std::string& path) {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type());
  };
  expect_refused<IoError>(read_after(shorten), {"changing", "truncated while being read"});
  expect_refused<IoError>(read_after(lengthen), {"changing", "has 99 bytes but had ", "must not"});
  expect_refused<IoError>(read_after(touch), {"changing", "was modified after it was opened"});
}

}  // namespace
}  // namespace polyhead
