"""Results as a line, as Markdown tables, and where they go in the documents."""

from duel import plot

BEGIN, END = "<!-- bench: begin, written by ./dev bench --publish -->", "<!-- bench: end -->"
WORST_FIRST = ("wrong", "loss", "slower, once", "undecided", "inconclusive", "parity", "faster")


def last_run(result):
    return result["runs"][-1]


def ratio_text(run):
    low, high = run["interval"]
    return f"{run['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def cpu_text(result):
    """Threads that spin burn processor time without working: it compares only single ones."""
    return f"{last_run(result)['cpu_ratio']:.2f}" if result["threads"] == 1 else ""


def one_line(result):
    run = last_run(result)
    head = f"{result['cell']:<26} {result['isa']:<5} {result['threads']} thr"
    if "error" in run:
        return f"{head}  WRONG: {run['error']}"
    return (f"{head}  torch {run['torch_ms']:9.3f} ms  ours {run['ours_ms']:9.3f} ms  "
            f"ratio {ratio_text(run)} (CPU {cpu_text(result) or '-'})  "
            f"{run['ours_of_peak']:4.0%} of peak  "
            f"{run['kept']}/{run['rounds']} rounds  {result['verdict']}")


def counts(report):
    verdicts = [r["verdict"] for r in report["results"]]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in WORST_FIRST if v in verdicts)


def summary_line(report):
    return f"{len(report['results'])} comparisons: {counts(report)}"


def ordered(report):
    def key(result):
        return WORST_FIRST.index(result["verdict"]), last_run(result).get("ratio", 0.0)
    return sorted(report["results"], key=key)


def isa_name(report, isa):
    """What "best" was on this machine."""
    for setting, engines in report["engines"].items():
        if setting.startswith(isa + ","):
            return engines["polyhead"]["isa"]
    return isa


def engines_text(report):
    """Versions once, and the instruction sets each setting really ran on."""
    names, sets = [], []
    for engines in report["engines"].values():
        ours, torch = engines["polyhead"], engines["torch"]
        names += [ours["engine"], torch["engine"]]
        sets.append(f"{ours['isa']} / {torch['isa']}")
    return (f"{', '.join(dict.fromkeys(names))}; instruction sets in use (ours / torch's): "
            f"{', '.join(dict.fromkeys(sets))}")


def variants_text(report):
    runs = [last_run(r) for r in report["results"]]
    plain = sum(run.get("variant") == "math" for run in runs)
    return f"torch's plain formula beat its own choice in {plain} of {len(runs)} comparisons"


def forced_torch_text(report):
    """Where torch is faster with AVX2 forced than by its own choice, that is the time to beat. The
    two were not measured in the same rounds, so this is said apart from the table."""
    runs = {(r["cell"], r["threads"], r["isa"]): last_run(r) for r in report["results"]
            if "error" not in last_run(r)}
    ratios = []
    for (cell, threads, isa), best in runs.items():
        forced = runs.get((cell, threads, "avx2"))
        if isa == "best" and forced and forced["torch_ms"] < best["torch_ms"]:
            ratios.append((forced["torch_ms"] / best["ours_ms"], f"{cell}, {threads} threads"))
    if not ratios:
        return "Nowhere was torch faster with AVX2 forced than by its own choice."
    ratio, where = min(ratios)
    return (f"With AVX2 forced, torch was faster than by its own choice in {len(ratios)} settings; "
            f"its AVX2 time divided by our best is then {ratio:.2f} or more (unpaired; least at "
            f"{where}).")


def details_table(report):
    yield ("| verdict | B x H x L x D | ISA | threads | torch, ms | ours, ms | torch / ours "
           "[95 %] | by the fastest calls | by CPU time | of FMA peak: ours, torch | rounds kept |")
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for result in ordered(report):
        run = last_run(result)
        head = (f"| {result['verdict']} | {result['cell']} | {isa_name(report, result['isa'])} | "
                f"{result['threads']} |")
        if "error" in run:
            yield f"{head} {run['error']} | | | | | | |"
            continue
        yield (f"{head} {run['torch_ms']:.3f} | {run['ours_ms']:.3f} | {ratio_text(run)} | "
               f"{run['min_time_ratio']:.2f} | {cpu_text(result)} | {run['ours_of_peak']:.0%}, "
               f"{run['torch_of_peak']:.0%} | {run['kept']} of {run['rounds']} |")


def errors_text(report):
    """The largest error of any cell, on each side: a speed is worth what its answers are."""
    worst = {}
    for result in report["results"]:
        for name, error in last_run(result).get("worst_error", {}).items():
            worst[name] = max(worst.get(name, 0.0), error)
    return ", ".join(f"{name} {error:.1e}" for name, error in worst.items())


def performance_block(report):
    machine = report["machine"]
    yield (f"Measured in {machine['month']} on {machine['cpus']} CPUs of {machine['cpu']}, "
           f"{report['rounds_wanted']} rounds per cell, load before {machine['load_before']}. "
           f"{engines_text(report)}.")
    yield ""
    yield (f"**{summary_line(report)}.** Largest error against float64, over all cells: "
           f"{errors_text(report)}; {variants_text(report)}.")
    yield ""
    yield forced_torch_text(report)
    yield ""
    yield "![torch's time divided by ours, with 95 % intervals](performance.svg)"
    yield ""
    yield from details_table(report)


def readme_block(report):
    """One row per cell, on the best instruction set."""
    by_cell = {}
    for result in report["results"]:
        if result["isa"] == "best" and "error" not in last_run(result):
            by_cell.setdefault(result["cell"], {})[result["threads"]] = last_run(result)
    threads = sorted({n for runs in by_cell.values() for n in runs})
    machine = report["machine"]
    yield (f"`./dev bench`, {machine['month']}, {machine['cpu']}, "
           f"{isa_name(report, 'best')}, float32. "
           "torch is 2.13's `scaled_dot_product_attention`; a ratio above 1 means that Polyhead "
           "is faster, brackets hold the 95 % interval.")
    yield ""
    yield ("| B x H x L x D | GFLOP/s, 1 thread | of the FMA peak (torch) | " +
           " | ".join(f"torch / ours, {n} thread{'s' * (n > 1)}" for n in threads) + " |")
    yield "|---|---|---|" + "---|" * len(threads)
    for cell, runs in by_cell.items():
        one = runs[threads[0]]
        ratios = " | ".join(ratio_text(runs[n]) if n in runs else "" for n in threads)
        yield (f"| {cell} | {one['ours_gflops']:.0f} | {one['ours_of_peak']:.0%} "
               f"({one['torch_of_peak']:.0%}) | {ratios} |")
    yield ""
    yield (f"All {summary_line(report)}. Every row, AVX2 too, the losses first: "
           "[docs/performance.md](docs/performance.md).")


def replace_block(path, lines):
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{path}: needs one line `{BEGIN}` and one `{END}` around the results")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    path.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}", encoding="utf-8")


def write(report, root):
    if not report["complete"]:
        raise SystemExit("bench: only a run of the whole grid is published, not --quick or a part")
    replace_block(root / "docs" / "performance.md", performance_block(report))
    replace_block(root / "README.md", readme_block(report))
    (root / "docs" / "performance.svg").write_text(plot.ratios_svg(report), encoding="utf-8")
