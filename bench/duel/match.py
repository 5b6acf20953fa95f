"""All cells in all settings, and what was found."""

import math
import random
import time

from duel import publish
from duel.engine import OURS, PEERS, Team, our_command, peer_command
from duel.progress import Progress
from duel.rounds import play, prepare
from duel.rules import final_verdict, summarise

MOST_ROUNDS = 3  # times the wanted ones, where neighbours spoil many
QUICK_ROUNDS = 3
QUICK_FLOPS = 2e8  # --quick alone leaves larger cells out


def fold_in(result, again):
    """The second run of a cell into what the first one gave. A peer that has no right answer in
    the second stays as it was; a cell that we get wrong has no times at all."""
    result["again"] = again
    if OURS in again["wrong"]:
        result["verdicts"] = {}
    for peer, second in again.get("peers", {}).items():
        first = result["run"]["peers"][peer]["verdict"]
        result["verdicts"][peer] = final_verdict([first, second["verdict"]])


class Match:
    """All that is asked of one call of this program. `rival`: None, or (name, command) of another
    build of ours, which is then the only one beside us."""

    def __init__(self, arguments, grid, judge, rival=None):
        self.judge = judge
        self.build = arguments.build
        self.rival = rival
        self.rng = random.Random(time.time_ns())
        self.most_flops = QUICK_FLOPS if arguments.quick and not arguments.only else math.inf
        self.cells = [cell for cell in grid.cells if self.is_asked_for(cell, arguments)]
        self.settings = [(isa, threads) for isa in arguments.isa or grid.peers
                         for threads in arguments.threads or grid.threads]
        self.peers = {isa: [name for name in names if name in (arguments.beside or PEERS)]
                      for isa, names in grid.peers.items()}
        quick = arguments.quick
        self.limits = (QUICK_ROUNDS, 1) if quick else (arguments.rounds, MOST_ROUNDS)
        self.progress = Progress(len(self.cells) * len(self.settings))
        self.best_probe = {}  # by setting
        self.engines = {}
        self.results = []  # so far: an interruption does not lose them

    def is_asked_for(self, cell, arguments):
        passes = "training" if cell.training else "forward"
        return (arguments.only in cell.name and arguments.passes in (None, passes)
                and cell.flops <= self.most_flops)

    def commands(self, isa):
        rivals = ({name: peer_command(name) for name in self.peers[isa]} if self.rival is None
                  else dict([self.rival]))
        return {OURS: our_command(self.build)} | rivals

    def run(self):
        for setting in self.settings:
            for result in self.run_setting(setting, self.commands(setting[0]), self.cells):
                self.results.append(result)
        suspects = [r for r in self.results if "slower, once" in r["verdicts"].values()]
        self.progress.total += len(suspects)
        for result in suspects:
            self.run_again(result)
        self.progress.clear()

    def run_again(self, result):
        """A loss is one that a second, independent run shows too."""
        cell = next(c for c in self.cells if c.name == result["cell"])
        commands = {name: command for name, command in self.commands(result["isa"]).items()
                    if name == OURS or result["verdicts"].get(name) == "slower, once"}
        for again in self.run_setting((result["isa"], result["threads"]), commands, [cell]):
            fold_in(result, again["run"])

    def run_setting(self, setting, commands, cells):
        """Yields a result for each cell, its verdicts those of this run alone."""
        isa, threads = setting
        with Team(commands, isa, threads) as team:
            self.engines.setdefault(f"{isa}, {threads} threads", {}).update(team.ask_all("hello"))
            for cell in cells:
                run = self.run_cell(team, cell, setting)
                verdicts = {peer: final_verdict([one["verdict"]])
                            for peer, one in run.get("peers", {}).items()}
                result = {"cell": cell.name, "kind": cell.kind, "group": cell.group,
                          "isa": isa, "threads": threads, "run": run, "verdicts": verdicts}
                self.progress.step()
                self.progress.clear()
                print("\n".join(publish.lines_of(result)), flush=True)
                yield result

    def run_cell(self, team, cell, setting):
        what = f"{cell.name}, {setting[0]}, {setting[1]} threads"
        self.progress.show(what)
        facts, engines = prepare(team, self.judge, cell)
        if OURS in facts["wrong"]:
            return facts

        def on_round(kept, wanted, played):
            self.progress.show(f"{what}: {kept} of {played} rounds kept", kept / wanted)

        rounds, best = play(team, engines, self.limits, self.rng,
                            self.best_probe.get(setting, 0.0), on_round)
        self.best_probe[setting] = best
        return facts | summarise(rounds, best, {engine.name: cell.flops for engine in engines})
