// Ctrl-C, and what else asks a program to end: noted, so that the run can be saved.
#pragma once

namespace train {

// SIGINT, SIGTERM and SIGHUP from here on; a second one ends the process at once.
void note_stops();
bool stop_wanted();

}  // namespace train
