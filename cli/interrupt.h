// SIGINT, SIGTERM and SIGHUP end the command with exit code 4 and nothing half written.
#pragma once

namespace polyhead::cli {

// Outside a DeferSignals a signal ends the process at once, with one line on stderr that starts
// with `who` ("polyhead run"; must outlive the process).
void install_signal_handlers(const char* who);

// While one lives, a signal is only noted: files are being written beside their targets, and the
// scope must clean up. A second signal ends the process all the same.
class DeferSignals {
 public:
  DeferSignals();
  ~DeferSignals();  // a signal noted meanwhile ends the process here
  DeferSignals(const DeferSignals&) = delete;
  DeferSignals& operator=(const DeferSignals&) = delete;

  void check() const;  // throws ResourceError if a signal came
};

}  // namespace polyhead::cli
