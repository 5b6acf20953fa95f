"""The ratios with their intervals, as an SVG without dependencies, readable in light and dark."""

import math
from html import escape

from duel import report as ask
from duel.tables import NAMES

LABEL, PANEL, ROW, TOP, GAP = 330, 360, 26, 64, 24
TICKS = (2, 4, 0.5, 1.5, 3, 6, 8, 16, 32, 64, 0.8, 1.25)  # the roundest first
LABEL_ROOM = 30

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.quiet { fill: #57606a; } .grid { stroke: #d0d7de; } .even { stroke: #24292f; }
.p0 { fill: #0b63c4; stroke: #0b63c4; } .p1 { fill: #6f42c1; stroke: #6f42c1; }
.p2 { fill: #b35900; stroke: #b35900; } .p3 { fill: #1a7f37; stroke: #1a7f37; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
  .even { stroke: #e6edf3; }
  .p0 { fill: #6cb6ff; stroke: #6cb6ff; } .p1 { fill: #c297ff; stroke: #c297ff; }
  .p2 { fill: #f0a35e; stroke: #f0a35e; } .p3 { fill: #56d364; stroke: #56d364; }
}
"""


class Scale:
    """Logarithmic: twice as fast and half as fast are equally far from even."""

    def __init__(self, results):
        ends = [x for r in results for peer in r["verdicts"]
                for x in ask.beside(r, peer)[0]["interval"]]
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
    """On the best instruction set: a panel for each number of threads."""
    results = [r for r in ask.select(report, isa="best") if r["verdicts"]]
    cells = list(dict.fromkeys(r["cell"] for r in results))
    peers = ask.peers_of(report)
    threads = ask.threads_of(report)
    scale = Scale(results)
    width = LABEL + len(threads) * (PANEL + GAP) + GAP
    bottom = TOP + ROW * len(cells)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 44}" '
             f'width="{width}" height="{bottom + 44}" role="img">',
             "<title>Time of each peer divided by Polyhead's</title>",
             f"<style>{STYLE}</style>", *legend(peers)]
    for row, cell in enumerate(cells):
        y = TOP + ROW * row
        parts.append(f'<line class="grid" x1="0" x2="{width}" y1="{y}" y2="{y}" '
                     'stroke-opacity="0.4"/>')
        parts.append(f'<text x="{LABEL - 12}" y="{y + ROW / 2 + 4}" '
                     f'text-anchor="end">{escape(cell)}</text>')
    for column, count in enumerate(threads):
        left = LABEL + column * (PANEL + GAP)
        parts += panel(left, bottom, f"{count} thread{'s' * (count > 1)}", scale)
        for result in ask.select({"results": results}, threads=count):
            top = TOP + ROW * cells.index(result["cell"])
            parts += [mark(result, peer, (left, top + ROW * (peers.index(peer) + 1)
                                          / (len(peers) + 1)), scale, peers.index(peer))
                      for peer in result["verdicts"]]
    return "\n".join([*parts, "</svg>"]) + "\n"


def legend(peers):
    x = 12
    for number, peer in enumerate(peers):
        yield f'<circle class="p{number}" cx="{x}" cy="14" r="4"/>'
        yield f'<text x="{x + 10}" y="18">{escape(NAMES.get(peer, peer))}</text>'
        x += 130
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
           "the peer's time / ours</text>")


def mark(result, peer, place, scale, number):
    one, _ = ask.beside(result, peer)
    left, y = place
    low, high = (left + scale(x) for x in one["interval"])
    title = f"{escape(NAMES.get(peer, peer))} {one['ratio']:.2f}"
    return (f'<g class="p{number}"><title>{title}</title>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="2"/>'
            f'<circle cx="{left + scale(one["ratio"]):.1f}" cy="{y:.1f}" r="3"/></g>')
