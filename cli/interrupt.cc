#include "interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "errors.h"

namespace polyhead::cli {
namespace {

const char* g_who = "polyhead";
// Lock-free atomics: any thread may run the handler.
std::atomic<bool> g_deferred{false};
std::atomic<bool> g_signalled{false};

void write_text(const char* text) {
  // Nothing is left to do about a stderr that cannot be written.
  if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

[[noreturn]] void end_interrupted() {
  write_text(g_who);
  write_text(": interrupted\n");
  _exit(kNoResource);
}

extern "C" void on_signal(int) {
  if (!g_deferred || g_signalled) end_interrupted();
  g_signalled = true;
}

}  // namespace

void install_signal_handlers(const char* who) {
  g_who = who;
  // A file that grows past the limit of `ulimit -f` is an error of that write, not a death.
  signal(SIGXFSZ, SIG_IGN);
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a read or write under way goes on
  for (int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before = {};
    sigaction(number, nullptr, &before);
    // nohup and background jobs ignore signals on purpose.
    if (before.sa_handler != SIG_IGN) sigaction(number, &action, nullptr);
  }
}

DeferSignals::DeferSignals() { g_deferred = true; }

DeferSignals::~DeferSignals() {
  g_deferred = false;
  if (g_signalled) end_interrupted();
}

void DeferSignals::check() const {
  if (g_signalled) throw ResourceError("interrupted");
}

}  // namespace polyhead::cli
