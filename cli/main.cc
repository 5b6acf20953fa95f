// The polyhead command: parses, runs one subcommand, and turns whatever is thrown into an exit code
// and one line on stderr.
#include <fcntl.h>
#include <unistd.h>

#include <iostream>
#include <new>
#include <string>

#include "arguments.h"
#include "base/escape.h"
#include "errors.h"
#include "interrupt.h"
#include "text.h"

namespace polyhead::cli {
namespace {

// A standard stream that is closed would lend its number to the next file opened, and what is meant
// for the stream would land in that file. Wrongly opened on purpose: using it must still fail.
void occupy_standard_streams() {
  for (int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    const int null = ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (null >= 0 && null != stream) ::close(null);
  }
}

struct Dispatch {
  int operator()(const PrintArguments& arguments) const {
    std::cout << arguments.text;
    return kOk;
  }
  int operator()(const RunArguments& arguments) const { return run_run(arguments); }
  int operator()(const VerifyArguments& arguments) const { return run_verify(arguments); }
  int operator()(const ExplainArguments& arguments) const { return run_explain(arguments); }
  int operator()(const DemoArguments& arguments) const { return run_demo(arguments); }
  int operator()(const InfoArguments& arguments) const { return run_info(arguments); }
};

// Of POLYHEAD_ISA or POLYHEAD_NUM_THREADS: bad usage, but no --help would tell more.
class EnvironmentError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Both read the environment, and throw InvalidArgument if it names what is not there.
void check_environment() {
  try {
    isa();
    num_threads();
  } catch (const InvalidArgument& error) {
    throw EnvironmentError(error.what());
  }
}

int run_command(int argc, const char* const* argv) {
  const Arguments arguments = parse_command_line(argc, argv);
  if (!std::holds_alternative<PrintArguments>(arguments)) check_environment();
  const int code = std::visit(Dispatch(), arguments);
  if (!std::cout.flush()) throw ResourceError("stdout: cannot be written");
  return code;
}

// Names from outside are escaped where they enter a message; this is the last line of defence.
std::string one_line(const std::string& what) {
  return is_valid_utf8(what) && !has_control_character(what) ? what : escaped(what);
}

int fail(const char* who, const std::string& what, ExitCode code) {
  std::cout.flush();  // what was already said comes first
  std::cerr << who << ": " << one_line(what) << "\n";
  return code;
}

int run_guarded(int argc, const char* const* argv) {
  const char* who = command_name(argc, argv);
  install_signal_handlers(who);
  try {
    return run_command(argc, argv);
  } catch (const EnvironmentError& error) {
    return fail(who, error.what(), kBadUsage);
  } catch (const UsageError& error) {
    return fail(who, std::string(error.what()) + " (see " + who + " --help)", kBadUsage);
  } catch (const ResourceError& error) {
    return fail(who, error.what(), kNoResource);
  } catch (const FileError& error) {
    return fail(who, error.what(), kBadFile);
  } catch (const InvalidArgument& error) {
    return fail(who, without_function(error.what()), kBadFile);
  } catch (const Unsupported& error) {
    return fail(who, without_function(error.what()), kBadFile);
  } catch (const IoError& error) {
    return fail(who, without_function(error.what()), kBadFile);
  } catch (const std::bad_alloc&) {
    return fail(who, "not enough memory", kNoResource);
  } catch (const std::exception& error) {
    return fail(who, std::string("internal error: ") + error.what(), kNoResource);
  }
}

}  // namespace
}  // namespace polyhead::cli

int main(int argc, char** argv) {
  polyhead::cli::occupy_standard_streams();
  return polyhead::cli::run_guarded(argc, argv);
}
