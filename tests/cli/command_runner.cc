#include "command_runner.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

namespace polyhead::cli {
namespace {

std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void redirect(const std::string& path, int stream, int flags) {
  const int file = open(path.c_str(), flags, 0600);
  if (file < 0 || dup2(file, stream) < 0) _exit(99);
  close(file);
}

void limit(int resource, int64_t bytes) {
  if (bytes == 0) return;
  const rlimit value = {static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
  if (setrlimit(static_cast<__rlimit_resource_t>(resource), &value) != 0) _exit(98);
}

[[noreturn]] void become_command(const std::vector<std::string>& arguments,
                                 const RunOptions& options, const std::filesystem::path& folder) {
  if (chdir(folder.c_str()) != 0) _exit(97);
  redirect("/dev/null", STDIN_FILENO, O_RDONLY);
  const bool collected = options.stdout_path.empty();
  redirect(collected ? folder.string() + ".out" : options.stdout_path, STDOUT_FILENO,
           collected ? O_WRONLY | O_CREAT | O_TRUNC : O_WRONLY);
  redirect(folder.string() + ".err", STDERR_FILENO, O_WRONLY | O_CREAT | O_TRUNC);
  for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
  limit(RLIMIT_FSIZE, options.max_file_bytes);
  limit(RLIMIT_AS, options.max_memory_bytes);
  for (int stream : options.closed_streams) close(stream);
  std::signal(SIGINT, SIG_DFL);  // a test that runs in the background ignores it
  std::string command = POLYHEAD_COMMAND_FILE;
  std::vector<char*> pointers = {command.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& argument : copies) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  execv(command.c_str(), pointers.data());
  _exit(96);
}

}  // namespace

void CommandTest::SetUp() {
  std::string name = testing::TempDir() + "polyhead-XXXXXX";
  ASSERT_NE(mkdtemp(name.data()), nullptr) << std::strerror(errno);
  folder_ = name;
}

void CommandTest::TearDown() {
  std::filesystem::remove_all(folder_);
  std::filesystem::remove(folder_.string() + ".out");
  std::filesystem::remove(folder_.string() + ".err");
}

Outcome CommandTest::polyhead(const std::vector<std::string>& arguments,
                              const RunOptions& options) const {
  const pid_t child = fork();
  if (child == 0) become_command(arguments, options, folder_);
  if (options.interrupt_after_ms > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(options.interrupt_after_ms));
    kill(child, SIGINT);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  Outcome outcome;
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  if (options.stdout_path.empty()) outcome.out = read_all(folder_.string() + ".out");
  outcome.err = read_all(folder_.string() + ".err");
  return outcome;
}

void CommandTest::expect_error(const std::vector<std::string>& arguments, int code,
                               const std::string& words, const RunOptions& options) const {
  const Outcome outcome = polyhead(arguments, options);
  std::string line;
  for (const std::string& argument : arguments) line += argument + " ";
  EXPECT_EQ(outcome.code, code) << line << "\n" << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << line << outcome.err;
  EXPECT_EQ(outcome.err.rfind("polyhead", 0), 0u) << outcome.err;
  EXPECT_NE(outcome.err.find(words), std::string::npos)
      << line << "\n  got:  " << outcome.err << "  want: " << words;
}

std::vector<std::string> CommandTest::files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string CommandTest::text(const std::string& name) const { return read_all(folder_ / name); }

void CommandTest::write(const std::string& name, const std::string& text) const {
  std::ofstream(folder_ / name, std::ios::binary) << text;
}

Tensor CommandTest::save_input(const std::string& name, std::initializer_list<int64_t> shape,
                               uint64_t seed) const {
  Tensor tensor(DType::kFloat32, shape);
  uint64_t state = seed * 0x9E3779B97F4A7C15u;
  for (int64_t n = 0; n < tensor.numel(); ++n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    tensor.data_as<float>()[n] = static_cast<float>(state >> 40) / 8388608.0f - 1.0f;
  }
  save_npy(path(name), tensor);
  return tensor;
}

void CommandTest::save_bools(const std::string& name, std::initializer_list<int64_t> shape,
                             const std::vector<int>& values) const {
  Tensor tensor(DType::kBool, shape);
  for (size_t n = 0; n < values.size(); ++n) tensor.data_as<bool>()[n] = values[n] != 0;
  save_npy(path(name), tensor);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && std::ranges::equal(a.shape(), b.shape()) &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.numel()) * dtype_bytes(a.dtype())) ==
             0;
}

}  // namespace polyhead::cli
