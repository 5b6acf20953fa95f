"""The Markdown of docs/performance.md and README.md."""

from duel import goals
from duel import report as ask
from duel.engine import OURS

NAMES = {"torch": "torch, its best", "torch-default": "torch, as written",
         "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", ask.BEST_PEER: "fastest peer"}
MARKS = {"faster": "", "parity": " ≈", "undecided": " ?", "inconclusive": " …",
         "slower, once": " ↓?", "loss": " **↓**"}


def ratio_text(one):
    low, high = one["interval"]
    return f"{one['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def row(*columns):
    return f"| {' | '.join(map(str, columns))} |"


def header(*columns):
    yield row(*columns)
    yield "|" + "---|" * len(columns)


def engines_text(report):
    """Versions once, and the instruction sets each setting really ran on."""
    names, sets = {}, {}
    for engines in report["engines"].values():
        names |= {one["engine"]: None for one in engines.values()}
        sets |= {f"{engines[OURS]['isa']} / {engines['torch']['isa']}": None}
    return (f"{', '.join(names)}; instruction sets in use (ours / torch's): {', '.join(sets)}; "
            "ONNX Runtime and OpenVINO choose theirs, and sit out where one is forced")


def machine_text(report):
    machine = report["machine"]
    return (f"{machine['month']} on {machine['cpus']} CPUs of {machine['cpu']}, load before "
            f"{machine['load_before']}")


def losses(report):
    found = [one for one in ask.comparisons(report) if one[0] in (*ask.FAILED, "slower, once")]
    if not found:
        open_ones = sum(verdict == "inconclusive" for verdict, _, _ in ask.comparisons(report))
        yield "**No loss in any cell.**" if open_ones == 0 else (
            f"No loss was found, but {open_ones} comparisons are inconclusive.")
        return
    yield from header("verdict", "cell", "ISA", "threads", "peer, its variant", "peer / ours")
    for verdict, result, peer in found:
        head = verdict, result["cell"], ask.isa_name(report, result["isa"]), result["threads"]
        if peer is None:
            yield row(*head, "", ask.our_error(result))
            continue
        variant = result["run"]["variants"][peer]
        yield row(*head, f"{NAMES.get(peer, peer)}: {variant}",
                  ratio_text(ask.beside(result, peer)[0]))


def means(report):
    peers = [*ask.peers_of(report), ask.BEST_PEER]
    yield from header("cells", "threads", "how many", *(NAMES.get(peer, peer) for peer in peers))
    for isa in ask.isas_of(report):
        for kind, group in ask.classes(report):
            if isa != "best" and group is not None:
                continue
            name = ask.KINDS[kind] + (f", {group}" if group else ", all")
            name += "" if isa == "best" else f", {isa} forced"
            for threads in ask.threads_of(report):
                cells = ask.select(report, kind=kind, group=group, isa=isa, threads=threads)
                found = [ask.mean_ratio(cells, peer)[0] for peer in peers]
                yield row(name, threads, len(cells),
                          *("" if mean is None else f"{mean:.2f}" for mean in found))


def goals_table(report):
    yield from header("aim", "threads", "wanted", "measured", "")
    for name, threads, bound, text, held in goals.rows(report):
        yield row(name, threads, bound, text, "reached" if held else "**missed**")


def details(report):
    """One row per cell and setting, that with the lowest ratio first."""
    peers = ask.peers_of(report)
    yield from header("cell", "ISA", "threads", "ours, ms", "of FMA peak",
                      *(NAMES.get(peer, peer) for peer in peers), "rounds kept")

    def lowest(result):
        return min((ask.beside(result, peer)[0]["ratio"] for peer in result["verdicts"]),
                   default=0.0)
    for result in sorted(report["results"], key=lowest):
        run = result["run"]
        if ask.our_error(result) is not None:
            continue
        ours = run["engines"][OURS]
        yield row(result["cell"], ask.isa_name(report, result["isa"]), result["threads"],
                  f"{ours['ms']:.3f}", f"{ours['of_peak']:.0%}",
                  *(peer_text(result, peer) for peer in peers), f"{run['kept']} of {run['rounds']}")


def peer_text(result, peer):
    if peer not in result["verdicts"]:
        return "–"
    return ratio_text(ask.beside(result, peer)[0]) + MARKS[result["verdicts"][peer]]


def variants_lines(report):
    for peer, names in ask.variants(report).items():
        chosen = ", ".join(f"{name} ({count})" for name, count in names.items())
        yield f"- {NAMES.get(peer, peer)}: {chosen}"


def reasons_lines(report):
    for peer, notes in ask.reasons(report).items():
        for reason, count in notes.items():
            yield f"- {NAMES.get(peer, peer)}, {count} times: {reason}"


def errors_text(report):
    """The largest error of any cell, by engine: a speed is worth what its answers are."""
    worst = {}
    for result in report["results"]:
        for name, error in result["run"]["worst_error"].items():
            worst[name] = max(worst.get(name, 0.0), error)
    return ", ".join(f"{name} {error:.1e}" for name, error in worst.items())


def crowded_text(report):
    """How often an engine's threads queued for a processor, of the rounds that it played."""
    found = {}
    for result in report["results"]:
        for name, count in result["run"].get("crowded", {}).items():
            crowded, played = found.get(name, (0, 0))
            found[name] = crowded + count, played + result["run"]["rounds"]
    return ", ".join(f"{name} {crowded} of {played}" for name, (crowded, played) in found.items())


def performance_block(report):
    yield f"Measured in {machine_text(report)}; {engines_text(report)}."
    yield ""
    yield f"{ask.counts(report)}. Largest error against float64: {errors_text(report)}."
    for title, lines in (("Losses", losses(report)),
                         ("Geometric means of the peer's time / ours", means(report)),
                         ("What was aimed for", goals_table(report))):
        yield from ("", f"### {title}", "", *lines)
    yield ""
    yield "![each peer's time divided by ours, with 95 % intervals](performance.svg)"
    yield from ("", f"Rounds discarded because threads queued for a processor: "
                f"{crowded_text(report)}.")
    yield from ("", "### Every cell", "")
    yield ("Each peer's time / ours with its 95 % interval, faster unless marked: ≈ parity, "
           "? undecided, … inconclusive, ↓? slower in the first run alone, ↓ a loss, – not "
           "offered.")
    yield from ("", "<details><summary>all rows, the lowest ratio first</summary>", "")
    yield from (*details(report), "", "</details>", "")
    yield from ("Which variant was fastest, in how many rows:", "", *variants_lines(report))
    if ask.reasons(report):
        yield from ("", "Not in the table:", "", *reasons_lines(report))


def readme_block(report):
    """The plain module cells and the means; ratios at each number of threads."""
    peers = [*ask.peers_of(report), ask.BEST_PEER]
    threads = ask.threads_of(report)
    counted = " / ".join(map(str, threads))
    best = ask.select(report, isa="best")
    yield (f"`./dev bench`, {machine_text(report)}, {ask.isa_name(report, 'best')}, float32, "
           f"{counted} threads: each peer's time divided by ours, above 1 where Polyhead is "
           "faster. torch's best is the fastest way to get what the cell asks for, as written is "
           "`mha(x, x, x)`.")
    yield ""
    yield from header("module B x L x E / heads", f"ours, ms, {counted} threads", "of FMA peak",
                      *(NAMES.get(peer, peer) for peer in peers))
    plain = [r["cell"] for r in best if r["kind"] == "module"
             and r["group"] in ("small", "projection-heavy", "attention-heavy")]
    for cell in dict.fromkeys(plain):
        found = [one for one in best if one["cell"] == cell and ask.our_error(one) is None]
        ours = [one["run"]["engines"][OURS] for one in found]
        yield row(cell.removeprefix("module "), " / ".join(f"{one['ms']:.2f}" for one in ours),
                  " / ".join(f"{one['of_peak']:.0%}" for one in ours),
                  *(means_text([[one] for one in found], peer) for peer in peers))
    for kind in (kind for kind, group in ask.classes(report) if group is None):
        by_threads = [ask.select(report, isa="best", kind=kind, threads=n) for n in threads]
        yield row(f"**geometric mean, {ask.KINDS[kind]}, {len(by_threads[0])} cells**", "", "",
                  *(means_text(by_threads, peer) for peer in peers))
    yield ""
    yield (f"{ask.counts(report)}. Every cell, AVX2 too, the losses first: "
           "[docs/performance.md](docs/performance.md).")


def means_text(by_threads, peer):
    found = [ask.mean_ratio(results, peer)[0] for results in by_threads]
    return " / ".join("–" if mean is None else f"{mean:.2f}" for mean in found)
