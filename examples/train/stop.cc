#include "stop.h"

#include <signal.h>

#include <atomic>

namespace train {
namespace {

std::atomic<bool> g_wanted{false};

extern "C" void on_stop(int) { g_wanted = true; }

}  // namespace

void note_stops() {
  // A file that grows past the limit of `ulimit -f` is an error of that write, not a death.
  signal(SIGXFSZ, SIG_IGN);
  struct sigaction action = {};
  action.sa_handler = on_stop;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  for (int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before = {};
    sigaction(number, nullptr, &before);
    // nohup and background jobs ignore signals on purpose.
    if (before.sa_handler != SIG_IGN) sigaction(number, &action, nullptr);
  }
}

bool stop_wanted() { return g_wanted; }

}  // namespace train
