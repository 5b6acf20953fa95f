"""A line that is rewritten on a terminal, and silence elsewhere."""

import sys
import time

WIDTH = 24


class Progress:
    def __init__(self, total):
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self.on = sys.stderr.isatty()

    def show(self, what, share=0.0):
        """`share` of the current step."""
        if not self.on:
            return
        part = min(1.0, (self.done + share) / max(self.total, 1))
        bar = "█" * round(part * WIDTH) + "░" * (WIDTH - round(part * WIDTH))
        seconds = int(time.monotonic() - self.started)
        text = f"{bar} {self.done}/{self.total} {seconds // 60}:{seconds % 60:02d} {what}"
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)

    def step(self):
        self.done += 1

    def clear(self):
        if self.on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
