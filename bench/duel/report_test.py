"""What is published says what was measured: losses first, nothing left out without its reason."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from duel import goals, plot, publish, rounds, tables  # noqa: E402
from duel import report as ask  # noqa: E402


def result(cell, ratios, *, group="long", threads=1, verdicts=(), not_offered=(), wrong=()):
    """Ours takes a millisecond at half the peak."""
    times = {"polyhead": 1.0} | ratios
    peers = {name: {"ratio": ratio, "interval": [ratio * 0.99, ratio * 1.01], "cpu_ratio": ratio,
                    "cpu_interval": [ratio, ratio]} for name, ratio in ratios.items()}
    run = {"wrong": dict(wrong), "not_offered": dict(not_offered), "kept": 30, "rounds": 31,
           "crowded": dict.fromkeys(times, 2), "worst_error": dict.fromkeys(times, 1e-6),
           "variants": {name: "way" for name in times},
           "peers": peers, "engines": {name: {"ms": ms, "of_peak": 0.5 / ms}
                                       for name, ms in times.items()}}
    kind = "module" if cell.startswith("module") else "attention"
    kind = f"train-{kind}" if cell.endswith("training") else kind
    return {"cell": cell, "kind": kind, "group": group, "isa": "best", "threads": threads, "run": run,
            "verdicts": dict.fromkeys(ratios, "faster") | dict(verdicts)}


def report(*results, **more):
    facts = {name: {"engine": f"{name} 1", "isa": "avx512"} for name in ("polyhead", "torch")}
    return {"machine": {"month": "2026-01", "cpus": 2, "cpu": "a CPU", "load_before": 0.1},
            "results": list(results), "engines": {"best, 1 threads": facts}, "goals": [],
            "own": [], "complete": True} | more


FAST = result("module 1x2x3/1", {"torch": 2.0, "onnxruntime": 1.5})
SLOW = result("1x2x3x4", {"torch": 0.9, "onnxruntime": 4.0}, verdicts={"torch": "loss"})
PARTLY = result("2x2x3x4", {"torch": 1.3}, not_offered={"onnxruntime": "no such mask"})
STEPS = [result("module 1x2x3/1, training", {"torch": 3.0},
                not_offered={"onnxruntime": "it computes no gradients"}),
         result("1x2x3x4, training", {"torch": 1.2})]
WRONG = result("3x2x3x4", {}, wrong={"polyhead": "off by one"})


class Questions(unittest.TestCase):
    def test_the_worst_comes_first(self):
        found = [(verdict, peer) for verdict, _, peer in ask.comparisons(
            report(FAST, SLOW, PARTLY, WRONG))]
        self.assertEqual(found[:3], [("wrong", None), ("loss", "torch"), ("faster", "torch")])
        self.assertEqual(len(found), 6)

    def test_a_loss_or_a_wrong_answer_fails(self):
        self.assertTrue(ask.has_failed(report(FAST, SLOW)))
        self.assertTrue(ask.has_failed(report(FAST, WRONG)))
        self.assertFalse(ask.has_failed(report(FAST, PARTLY)))

    def test_the_best_peer_is_chosen_in_each_cell(self):
        mean, count = ask.mean_ratio([FAST, SLOW], ask.BEST_PEER)
        self.assertAlmostEqual(mean, (1.5 * 0.9)**0.5)
        self.assertEqual(count, 2)
        self.assertEqual(ask.mean_ratio([PARTLY], "onnxruntime"), (None, 0))

    def test_a_second_run_is_the_one_that_counts(self):
        again = SLOW | {"again": {"peers": {"torch": {"ratio": 0.8}}}}
        self.assertEqual(ask.beside(again, "torch")[0]["ratio"], 0.8)
        self.assertEqual(ask.beside(again, "onnxruntime")[0]["ratio"], 4.0)

    def test_reasons_and_variants_are_counted(self):
        found = report(FAST, PARTLY)
        self.assertEqual(ask.reasons(found),
                         {"onnxruntime": {"does not offer it: no such mask": 1}})
        self.assertEqual(ask.variants(found), {"torch": {"way": 2}, "onnxruntime": {"way": 1}})


class Aims(unittest.TestCase):
    def rows(self, goal):
        found = report(FAST, SLOW, *STEPS, goals=[goal])
        return [(text, held) for *_, text, held in goals.rows(found)]

    def test_means_and_shares(self):
        mean = {"kinds": ["module"], "beside": "torch", "at_least": 1.6}
        self.assertEqual(self.rows(mean), [("2.00", True)])
        self.assertEqual(self.rows(mean | {"at_least": 2.1}), [("2.00", False)])
        share = {"of_peak": "1x2x3x4", "at_least": 0.8}
        self.assertEqual(self.rows(share), [("0.50", False)])
        self.assertEqual(self.rows(share | {"of_peak": "not measured"}), [])

    def test_training_counts_apart(self):
        mean = {"beside": "torch", "at_least": 1.25}
        kinds = "train-module", "train-attention"
        self.assertEqual(self.rows(mean | {"kinds": kinds[1:]}), [("1.20", False)])
        self.assertEqual(self.rows(mean | {"kinds": kinds}), [("1.90", True)])
        self.assertEqual(self.rows(mean | {"kinds": kinds, "group": "short"}), [])

    def test_a_wrong_answer_has_no_share_of_the_peak(self):
        goal = {"of_peak": WRONG["cell"], "at_least": 0.1}
        found = report(WRONG | {"run": {"wrong": WRONG["run"]["wrong"]}}, goals=[goal])
        self.assertEqual([row[-2:] for row in goals.rows(found)], [("0.00", False)])


class Pages(unittest.TestCase):
    def test_losses_stand_first_and_nothing_is_missing(self):
        page = "\n".join(tables.performance_block(report(FAST, SLOW, PARTLY)))
        self.assertLess(page.index("| loss | 1x2x3x4 |"), page.index("| module 1x2x3/1 |"))
        self.assertIn("does not offer it: no such mask", page)
        self.assertNotIn("No loss", page)
        self.assertIn("queued for a processor: polyhead 6 of 93, torch 6 of 93, onnxruntime 4 of 62.",
                      page)
        self.assertIn("No loss", "\n".join(tables.performance_block(report(FAST))))

    def test_training_has_means_of_its_own(self):
        found = report(FAST, SLOW, *STEPS)
        self.assertEqual([kind for kind, group in ask.classes(found) if group is None],
                         ["module", "attention", "train-module", "train-attention"])
        page = "\n".join(tables.performance_block(found))
        self.assertIn("| training, attention alone, all | 1 | 1 | 1.20 |", page)
        self.assertIn("ONNX Runtime, 1 times: does not offer it: it computes no gradients", page)
        self.assertIn("training, modules, 1 cells** |  |  | 3.00 |",
                      "\n".join(tables.readme_block(found)))

    def test_the_terminal_says_the_same(self):
        lines = "\n".join(publish.summary_lines(report(FAST, SLOW)))
        self.assertLess(lines.index("LOSS: 1x2x3x4"), lines.index("4 comparisons: 1 loss"))

    def test_readme_and_plot_have_every_number_of_threads(self):
        both = report(FAST, FAST | {"threads": 2})
        self.assertIn("| 2.00 / 2.00 |", "\n".join(tables.readme_block(both)))
        self.assertIn("2 threads", plot.ratios_svg(both))


class Rounds(unittest.TestCase):
    def test_long_rounds_are_fewer_but_enough(self):
        self.assertEqual(rounds.rounds_wanted(30, 0.05), 30)
        self.assertEqual(rounds.rounds_wanted(30, 0.2), 20)
        self.assertGreater(rounds.rounds_wanted(30, 3.0), 15)
        self.assertEqual(rounds.rounds_wanted(3, 3.0), 3)


if __name__ == "__main__":
    unittest.main()
