"""Results as lines for the terminal, and where the tables go in the documents."""

from duel import goals, plot, tables
from duel import report as ask
from duel.engine import OURS

BEGIN, END = "<!-- bench: begin, written by ./dev bench --publish -->", "<!-- bench: end -->"


def lines_of(result):
    """What was just measured: ours, then one line per peer."""
    run = result["run"]
    head = f"{result['cell']} | {result['isa']}, {result['threads']} thr"
    for error in run["wrong"].values():
        yield f"{head}  WRONG: {error}"
    if OURS in run["wrong"]:
        return
    ours = run["engines"][OURS]
    yield (f"{head} | ours {ours['ms']:.3f} ms, {ours['of_peak']:.0%} of peak, "
           f"{run['kept']}/{run['rounds']} rounds")
    for name, one in run["peers"].items():
        yield (f"    {name:<16} {run['engines'][name]['ms']:9.3f} ms  {tables.ratio_text(one)}"
               f"{cpu_text(result, one)}  {one['verdict']}  {run['variants'][name]}")
    for name, reason in run["not_offered"].items():
        yield f"    {name:<16} does not offer it: {reason}"


def cpu_text(result, one):
    """Threads that spin burn processor time without working: it compares only single ones. On a
    busy machine it says more than the ratio."""
    if result["threads"] > 1:
        return ""
    low, high = one["cpu_interval"]
    return f" (CPU {one['cpu_ratio']:.2f} [{low:.2f}, {high:.2f}])"


def summary_lines(report):
    """Losses first."""
    yield ""
    for verdict, result, peer in ask.comparisons(report):
        if verdict in ask.FAILED or verdict == "slower, once":
            found = (f"beside {peer}: {tables.ratio_text(ask.beside(result, peer)[0])}" if peer
                     else ask.our_error(result))
            yield (f"{verdict.upper()}: {result['cell']}, {result['isa']}, "
                   f"{result['threads']} thr, {found}")
    yield from mean_lines(report)
    for name, threads, bound, text, held in goals.rows(report) if report["complete"] else ():
        yield f"{'reached' if held else 'MISSED ':<8} {name}, {threads} thr: {text}, wanted {bound}"
    yield ask.counts(report)


def mean_lines(report):
    """Geometric means of peer / ours, by class and setting."""
    peers = ask.peers_of(report)
    peers += [ask.BEST_PEER] if len(peers) > 1 else []
    settings = [(isa, n) for isa in ask.isas_of(report) for n in ask.threads_of(report)]
    for isa, threads in settings:
        for kind, group in ask.classes(report):
            cells = ask.select(report, kind=kind, group=group, isa=isa, threads=threads)
            means = {peer: ask.mean_ratio(cells, peer)[0] for peer in peers}
            text = ", ".join(f"{peer} {mean:.2f}" for peer, mean in means.items() if mean)
            if text:
                yield (f"{isa}, {threads} thr, mean of {len(cells):2} {kind}, "
                       f"{group or 'all'}: {text}")


def replace_block(path, lines, marks=(BEGIN, END)):
    text, (begin, end) = path.read_text(encoding="utf-8"), marks
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{path}: needs one line `{begin}` and one `{end}` around the results")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    path.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{tail}", encoding="utf-8")


def write(report, root):
    if not report["complete"]:
        raise SystemExit("bench: only a run of the whole grid is published, not --quick or a part")
    replace_block(root / "docs" / "performance.md", tables.performance_block(report))
    replace_block(root / "README.md", tables.readme_block(report))
    (root / "docs" / "performance.svg").write_text(plot.ratios_svg(report), encoding="utf-8")
