// How much memory a piece of work takes: run in a process of its own, whose memory nothing else has
// touched, and asked for the largest resident set it ever had.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace polyhead::bench {

inline constexpr double kMiB = 1024.0 * 1024.0;

// VmHWM of this process; -1 if the system does not tell.
inline double peak_resident_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  }
  return -1;
}

// Prints what there is above `tensors_mib`, and says whether it is within the allowance.
inline bool report_resident(const char* tensors, double tensors_mib, double allowed_mib) {
  const double peak_mib = peak_resident_mib(), extra_mib = peak_mib - tensors_mib;
  std::printf("peak resident %.1f MiB, of it %s %.1f MiB\n", peak_mib, tensors, tensors_mib);
  std::printf("above %s: %.1f MiB, allowed %.0f MiB\n", tensors, extra_mib, allowed_mib);
  return peak_mib > 0 && extra_mib < allowed_mib;
}

// The exit status of body() in a child.
template <class Body>
int run_in_child(const Body& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return 4;
  if (child == 0) {
    const int result = body();
    std::fflush(nullptr);
    _exit(result);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 4;
  return WEXITSTATUS(status);
}

}  // namespace polyhead::bench
