"""The ratios with their intervals, as an SVG without dependencies, readable in light and dark."""

import math
from html import escape

LABEL, PANEL, ROW, TOP, GAP = 210, 300, 26, 64, 24
MARKS = {1: "one", 2: "two"}
TICKS = (2, 4, 0.5, 1.5, 3, 6, 8, 16, 32, 64, 0.8, 1.25)  # the roundest first
LABEL_ROOM = 30

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.quiet { fill: #57606a; } .grid { stroke: #d0d7de; } .even { stroke: #24292f; }
.one { fill: #0b63c4; stroke: #0b63c4; } .two { fill: #b35900; stroke: #b35900; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
  .even { stroke: #e6edf3; }
  .one { fill: #6cb6ff; stroke: #6cb6ff; } .two { fill: #f0a35e; stroke: #f0a35e; }
}
"""


class Scale:
    """Logarithmic: twice as fast and half as fast are equally far from even."""

    def __init__(self, results):
        ends = [x for r in results for x in r["runs"][-1]["interval"]]
        self.low = min(0.9, min(ends) * 0.97)
        self.high = max(1.5, max(ends) * 1.05)

    def __call__(self, ratio):
        return PANEL * math.log(ratio / self.low) / math.log(self.high / self.low)

    def ticks(self):
        """As many as have room for their labels; 1 is always among them."""
        chosen = [1]
        for tick in TICKS:
            if self.low <= tick <= self.high and all(
                    abs(self(tick) - self(other)) >= LABEL_ROOM for other in chosen):
                chosen.append(tick)
        return chosen


def ratios_svg(report):
    results = [r for r in report["results"] if "error" not in r["runs"][-1]]
    cells = list(dict.fromkeys(r["cell"] for r in results))
    isas = list(dict.fromkeys(r["isa"] for r in results))
    scale = Scale(results)
    width = LABEL + len(isas) * (PANEL + GAP) + GAP
    bottom = TOP + ROW * len(cells)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 44}" '
             f'width="{width}" height="{bottom + 44}" role="img">',
             "<title>Time of torch's scaled_dot_product_attention divided by Polyhead's</title>",
             f"<style>{STYLE}</style>", *legend(results)]
    for row, cell in enumerate(cells):
        parts.append(f'<text x="{LABEL - 12}" y="{TOP + ROW * (row + 0.5) + 4}" '
                     f'text-anchor="end">{escape(cell)}</text>')
    for column, isa in enumerate(isas):
        left = LABEL + column * (PANEL + GAP)
        parts += panel(left, bottom, panel_title(report, isa), scale)
        parts += [mark(r, left, TOP + ROW * (cells.index(r["cell"]) + 0.5), scale)
                  for r in results if r["isa"] == isa]
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel_title(report, isa):
    names = {e["polyhead"]["isa"] for s, e in report["engines"].items() if s.startswith(isa + ",")}
    return ", ".join(names) + (" (the best here)" if isa == "best" else " forced on both")


def legend(results):
    x = LABEL
    for threads in sorted({r["threads"] for r in results}):
        yield f'<circle class="{MARKS.get(threads, "two")}" cx="{x}" cy="14" r="4"/>'
        yield f'<text x="{x + 10}" y="18">{threads} thread{"s" * (threads > 1)}</text>'
        x += 90
    yield (f'<text class="quiet" x="{x + 10}" y="18">bars: 95 % interval; right of 1: '
           "Polyhead is faster</text>")


def panel(left, bottom, title, scale):
    yield f'<text x="{left}" y="{TOP - 16}" font-weight="600">{escape(title)}</text>'
    for tick in scale.ticks():
        x = left + scale(tick)
        style = "even" if tick == 1 else "grid"
        yield f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>'
        yield (f'<text class="quiet" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
               f"{tick:g}</text>")
    yield (f'<text class="quiet" x="{left + PANEL / 2}" y="{bottom + 36}" text-anchor="middle">'
           "torch's time / ours</text>")


def mark(result, left, y, scale):
    run = result["runs"][-1]
    style = MARKS.get(result["threads"], "two")
    y += -5 if result["threads"] == 1 else 5
    low, high = (left + scale(x) for x in run["interval"])
    return (f'<g class="{style}"><title>{run["ratio"]:.2f}</title>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke-width="2"/>'
            f'<circle cx="{left + scale(run["ratio"]):.1f}" cy="{y}" r="4"/></g>')
