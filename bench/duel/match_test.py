"""A second run confirms or clears, whatever it gives, and what was measured outlives a crash."""

import contextlib
import io
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from duel import match, publish  # noqa: E402
from duel import report as ask  # noqa: E402
from duel.engine import EngineFailed  # noqa: E402


def run_of(verdicts, wrong=()):
    """One run of a cell: {peer: verdict}."""
    if "polyhead" in wrong:
        return {"wrong": dict(wrong), "not_offered": {}, "worst_error": {}, "variants": {}}
    names = ["polyhead", *verdicts]
    peers = {name: {"ratio": 0.9, "interval": [0.9, 0.9], "cpu_ratio": 0.9,
                    "cpu_interval": [0.9, 0.9], "verdict": verdict}
             for name, verdict in verdicts.items()}
    return {"wrong": dict(wrong), "not_offered": {}, "kept": 30, "rounds": 31, "peers": peers,
            "variants": dict.fromkeys(names, "way"), "worst_error": dict.fromkeys(names, 1e-6),
            "engines": dict.fromkeys(names, {"ms": 1.0, "of_peak": 0.5})}


def cell(name, training=False, flops=1.0):
    return SimpleNamespace(name=name, kind="module", group="small", flops=flops, training=training)


class Rehearsed(match.Match):
    """Plays what it is given: the runs of its cells in order, the second ones last."""

    def __init__(self, cells, runs, **options):
        arguments = SimpleNamespace(**{"build": "", "quick": False, "only": "", "passes": None,
                                       "isa": ["best"], "threads": [1], "beside": None,
                                       "rounds": 30} | options)
        peers = {"best": ["torch", "onnxruntime"]}
        super().__init__(arguments, SimpleNamespace(cells=cells, peers=peers), judge=None)
        self.runs = iter(runs)

    def run_cell(self, team, cell, setting):
        run = next(self.runs)
        if isinstance(run, BaseException):
            raise run
        return run


def results_of(*runs, cells=1, error=None):
    """The report after these runs; `error`: what they end with."""
    played = Rehearsed([cell(f"cell {n}") for n in range(cells)], [*runs, error])
    with (mock.patch.object(match, "Team", mock.MagicMock()),
          contextlib.redirect_stdout(io.StringIO()),
          contextlib.suppress(type(error)) if error else contextlib.nullcontext()):
        played.run()
    return {"results": played.results, "complete": False}


FIRST = run_of({"torch": "slower", "onnxruntime": "faster"})


class SecondRun(unittest.TestCase):
    def verdicts(self, *runs, **more):
        found = ask.comparisons(results_of(*runs, **more))
        return [(verdict, peer) for verdict, _, peer in found]

    def test_confirms_or_clears(self):
        faster = ("faster", "onnxruntime")
        self.assertEqual(self.verdicts(FIRST, run_of({"torch": "slower"})),
                         [("loss", "torch"), faster])
        self.assertEqual(self.verdicts(FIRST, run_of({"torch": "parity"})),
                         [("parity", "torch"), faster])

    def test_a_peer_without_an_answer_in_it_stays_slower_once(self):
        self.assertEqual(self.verdicts(FIRST, run_of({}, wrong={"torch": "off by one"})),
                         [("slower, once", "torch"), ("faster", "onnxruntime")])

    def test_our_wrong_answer_in_it_is_wrong_and_has_no_times(self):
        report = results_of(FIRST, run_of({}, wrong={"polyhead": "off by one"}))
        self.assertEqual([verdict for verdict, *_ in ask.comparisons(report)], ["wrong"])
        self.assertTrue(ask.has_failed(report))
        self.assertIn("WRONG: cell 0, best, 1 thr, off by one", publish.summary_lines(report))


class Choice(unittest.TestCase):
    def names(self, **options):
        cells = [cell("small"), cell("large", flops=1e12), cell("small, training", training=True)]
        return [one.name for one in Rehearsed(cells, [], **options).cells]

    def test_by_name_pass_and_size(self):
        self.assertEqual(self.names(), ["small", "large", "small, training"])
        self.assertEqual(self.names(only="small"), ["small", "small, training"])
        self.assertEqual(self.names(passes="training"), ["small, training"])
        self.assertEqual(self.names(passes="forward"), ["small", "large"])
        self.assertEqual(self.names(quick=True), ["small", "small, training"])
        self.assertEqual(self.names(quick=True, only="large"), ["large"])


class Interruption(unittest.TestCase):
    def test_what_was_measured_is_kept(self):
        for error in (KeyboardInterrupt(), EngineFailed("torch ended")):
            report = results_of(FIRST, cells=2, error=error)
            self.assertEqual(ask.counts(report), "2 comparisons: 1 slower, once, 1 faster")
            again = results_of(FIRST, error=error)
            self.assertEqual(ask.counts(again), ask.counts(report))
            self.assertIn("SLOWER, ONCE", "\n".join(publish.summary_lines(again)))


if __name__ == "__main__":
    unittest.main()
