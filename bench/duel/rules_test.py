"""The rules must be able to say each of their words, and the interval must cover."""

import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from duel import rules  # noqa: E402


def rounds(ratio, count=30, spread=0.01, probes=(100.0, 101.0), seed=3):
    """Ours takes a millisecond, torch `ratio` as long, onnxruntime three."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        torch = 1e-3 * ratio * (1 + spread * rng.uniform(-1, 1))
        seconds = {"polyhead": 1e-3, "torch": torch, "onnxruntime": 3e-3}
        made.append(rules.Round(seconds, dict(seconds), *probes))
    return made


def summary_of(given, best=101.0, flops=1e6):
    return rules.summarise(given, best, dict.fromkeys(given[0].seconds, flops))


class Verdicts(unittest.TestCase):
    def verdict(self, given):
        return summary_of(given)["peers"]["torch"]["verdict"]

    def test_each_word(self):
        self.assertEqual(self.verdict(rounds(1.3)), "faster")
        self.assertEqual(self.verdict(rounds(1.0)), "parity")
        self.assertEqual(self.verdict(rounds(0.9)), "slower")
        self.assertEqual(self.verdict(rounds(1.0, spread=0.9)), "undecided")
        self.assertEqual(self.verdict(rounds(1.3, count=14)), "inconclusive")

    def test_a_win_of_one_percent_is_none(self):
        self.assertEqual(self.verdict(rounds(1.01, spread=0.001)), "parity")

    def test_each_peer_is_judged_by_itself(self):
        peers = summary_of(rounds(0.9))["peers"]
        self.assertEqual({name: one["verdict"] for name, one in peers.items()},
                         {"torch": "slower", "onnxruntime": "faster"})

    def test_disturbed_rounds_do_not_count(self):
        drifting = rounds(0.5, probes=(100.0, 88.0))
        stolen = rounds(0.5, probes=(59.0, 59.0))
        summary = summary_of(rounds(1.3, count=20) + drifting + stolen, best=100.0)
        self.assertEqual((summary["kept"], summary["rounds"]), (20, 80))
        self.assertEqual(summary["peers"]["torch"]["verdict"], "faster")

    def test_rounds_in_which_threads_queued_do_not_count(self):
        queued = rounds(0.5)
        for one in queued:
            one.queued = {"polyhead": 0.0, "torch": 0.3}
        free = rounds(1.3)
        for one in free:
            one.queued = {"polyhead": 0.01, "torch": 0.02}
        summary = summary_of(free + queued)
        self.assertEqual((summary["kept"], summary["rounds"]), (30, 60))
        self.assertEqual(summary["crowded"], {"polyhead": 0, "torch": 30, "onnxruntime": 0})
        self.assertEqual(summary["peers"]["torch"]["verdict"], "faster")

    def test_a_loss_takes_two_runs(self):
        self.assertEqual(rules.final_verdict(["slower", "slower"]), "loss")
        self.assertEqual(rules.final_verdict(["slower", "parity"]), "parity")
        self.assertEqual(rules.final_verdict(["slower"]), "slower, once")
        self.assertEqual(rules.final_verdict(["faster"]), "faster")


class Interval(unittest.TestCase):
    def test_covers_the_median(self):
        covered = 0
        for seed in range(60):
            rng = random.Random(seed)
            low, high = rules.bootstrap_interval([rng.gauss(1, 0.1) for _ in range(30)])
            self.assertLess(low, high)
            covered += low <= 1 <= high
        self.assertGreaterEqual(covered, 51)

    def test_shares_of_the_peak(self):
        summary = summary_of(rounds(2, spread=0, probes=(100.0, 100.0)), 100.0, 5e7)
        self.assertAlmostEqual(summary["engines"]["polyhead"]["of_peak"], 0.5)
        self.assertAlmostEqual(summary["engines"]["torch"]["of_peak"], 0.25)
        self.assertAlmostEqual(summary["peers"]["torch"]["min_time_ratio"], 2)

    def test_a_mean_of_ratios(self):
        self.assertAlmostEqual(rules.geometric_mean([0.5, 2]), 1)
        self.assertAlmostEqual(rules.geometric_mean([1, 4, 16]), 4)


if __name__ == "__main__":
    unittest.main()
