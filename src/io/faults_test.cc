// Every n-th system call fails, falls short or is interrupted; every n-th allocation fails.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include <polyhead/io.h>
#include "io/elements.h"
#include "io/input_file.h"
#include "io/npy_header.h"
#include "io/safetensors_reader.h"
#include "io/test_files.h"

namespace {

// How many more allocations succeed; negative: all of them. One thread runs when it is set.
std::atomic<long> allocations_left{-1};

void* allocate(size_t bytes, size_t alignment) {
  if (allocations_left.load() == 0) throw std::bad_alloc();
  if (allocations_left.load() > 0) --allocations_left;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, std::max(rounded, alignment));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new[](size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace polyhead {
namespace {

enum class Fault { kFails, kFallsShort, kInterrupted };

// Counts the calls and spoils the one with the given number.
class FaultyCalls : public SystemCalls {
 public:
  FaultyCalls(Fault fault, int spoiled) : fault_(fault), left_(spoiled) {}
  bool reached() const { return left_ < 0; }

  int open(const char* path, int flags, mode_t mode) override {
    return spoils() ? -1 : SystemCalls::open(path, flags, mode);
  }
  int fstat(int fd, struct stat* status) override {
    return can_be_interrupted_ || !spoils() ? SystemCalls::fstat(fd, status) : -1;
  }
  ssize_t pread(int fd, void* to, size_t bytes, off_t offset) override {
    if (!spoils(&bytes)) return SystemCalls::pread(fd, to, bytes, offset);
    return -1;
  }
  ssize_t write(int fd, const void* from, size_t bytes) override {
    if (!spoils(&bytes)) return SystemCalls::write(fd, from, bytes);
    return -1;
  }
  int fchmod(int fd, mode_t mode) override {
    return can_be_interrupted_ || !spoils() ? SystemCalls::fchmod(fd, mode) : -1;
  }
  int fsync(int fd) override { return spoils() ? -1 : SystemCalls::fsync(fd); }
  int close(int fd) override {
    const int result = SystemCalls::close(fd);  // the number is released even on failure
    return can_be_interrupted_ || !spoils() ? result : -1;
  }
  int rename(const char* from, const char* to) override {
    return can_be_interrupted_ || !spoils() ? SystemCalls::rename(from, to) : -1;
  }

 private:
  bool spoils(size_t* bytes = nullptr) {
    if (left_-- != 0) return false;
    if (fault_ == Fault::kFallsShort) {
      if (bytes != nullptr) *bytes = std::min<size_t>(*bytes, 1);
      return false;
    }
    errno = fault_ == Fault::kFails ? EIO : EINTR;
    return true;
  }

  Fault fault_;
  int left_;
  const bool can_be_interrupted_ = fault_ != Fault::kFails;  // these calls are not
};

const char kJson[] =
    "{\"__metadata__\":{\"format\":\"a text too long for the small string optimisation\"},"
    "\"a.name.that.takes.memory.of.its.own\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,"
    "8]},"
    "\"h\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[8,16]}}";
const char kName[] = "a.name.that.takes.memory.of.its.own";

void read_safetensors(const std::string& path, SystemCalls& calls) {
  const SafetensorsReader reader(std::make_unique<InputFile>("read", path, calls), path, {});
  EXPECT_EQ(reader.read(kName).numel(), 2);
  EXPECT_EQ(widened(reader.read("h")).numel(), 4);
}

void read_npy_file(const std::string& path, SystemCalls& calls) {
  EXPECT_EQ(read_npy(InputFile("read", path, calls), path).numel(), 6);
}

void write_file(const std::string& path, SystemCalls& calls) {
  AtomicFile file("write", path, calls);
  file.write(std::string_view("some "));
  file.write(std::string_view("text"));
  file.commit();
}

constexpr char kNpyDict[] = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }";

struct Operation {
  const char* file;
  void (*run)(const std::string& path, SystemCalls& calls);
};
constexpr Operation kOperations[] = {
    {"w.safetensors", read_safetensors}, {"x.npy", read_npy_file}, {"out", write_file}};

class Faults : public testing::TestWithParam<Operation> {
 protected:
  Faults() {
    folder_.write("w.safetensors", safetensors_bytes(kJson, 16));
    folder_.write("x.npy", npy_bytes(kNpyDict, 24));
    folder_.write("out", "old");
  }
  std::string path() const { return folder_.path(GetParam().file); }
  void expect_folder_is_clean() const { EXPECT_EQ(folder_.file_count(), 3u); }

  TestFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Io, Faults, testing::ValuesIn(kOperations), [](const auto& each) {
  return std::string(each.param.file).substr(0, 1);
});

TEST_P(Faults, EveryCallThatFailsIsReported) {
  int calls_made = 0, errors = 0;
  for (bool done = false; !done; ++calls_made) {
    FaultyCalls calls(Fault::kFails, calls_made);
    try {
      GetParam().run(path(), calls);
    } catch (const IoError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(path()), text.npos) << text;
      EXPECT_NE(text.find("Input/output error"), text.npos) << text;
      ++errors;
    }
    expect_folder_is_clean();
    done = !calls.reached();
  }
  // All but the call that was never reached, and the closing of a file that was only read.
  EXPECT_GE(errors, calls_made - 2);
  EXPECT_GE(errors, 5);
}

TEST_P(Faults, ShortAndInterruptedCallsAreContinued) {
  for (const Fault fault : {Fault::kFallsShort, Fault::kInterrupted}) {
    bool done = false;
    for (int i = 0; !done; ++i) {
      FaultyCalls calls(fault, i);
      EXPECT_NO_THROW(GetParam().run(path(), calls)) << i;
      done = !calls.reached();
    }
  }
  expect_folder_is_clean();
}

TEST_P(Faults, EveryAllocationThatFailsIsABadAlloc) {
  const std::string where = path();
  GetParam().run(where, system_calls());  // whatever is made once is made now
  int failures = 0;
  for (bool done = false; !done;) {
    allocations_left = failures;
    try {
      GetParam().run(where, system_calls());
      done = true;
    } catch (const std::bad_alloc&) {
      ++failures;
    }
    allocations_left = -1;
    expect_folder_is_clean();
  }
  EXPECT_GE(failures, 5);
}

// The messages allocate too: on a bad file either the refusal or bad_alloc comes out.
TEST(FaultsInBadFiles, AllocationFailuresStayClean) {
  const std::string bytes = safetensors_bytes("{\"w\":{\"dtype\":\"F33\"}}");
  const auto parse = [&] {
    const MemorySource source("here", std::as_bytes(std::span(bytes)));
    parse_safetensors_header(source, "here", {});
  };
  int failures = 0;
  for (bool done = false; !done;) {
    allocations_left = failures;
    try {
      parse();
      FAIL() << "accepted";
    } catch (const std::bad_alloc&) {
      ++failures;
    } catch (const IoError&) {
      done = true;
    }
    allocations_left = -1;
  }
  EXPECT_GE(failures, 5);
}

}  // namespace
}  // namespace polyhead
