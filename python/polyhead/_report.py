"""The page of heads."""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyhead import _core


class Report:
    """One HTML page that shows every head's weights, needs no network, and shows itself in a
    notebook (docs/report.md).

        polyhead.Report({"Layer 1": weights}, [["the", "cat", "sat"]]).save("heads.html")

    layers      {name: weights}, or the weights of the one layer: [batch, heads, L, S], float32 or
                float64
    tokens      of each batch item, the labels of its queries; numbers if None. A shorter list shows
                as many rows as it has words: the rest is padding
    key_tokens  the same of its keys; as `tokens` if None
    title, subtitle, guide  above the pictures; guide is paragraphs that say what to look for

    ValueError for shapes that do not fit together, or more than 32 million weights.
    """

    def __init__(self, layers: Any, tokens: Sequence[Sequence[str]] | None = None,
                 key_tokens: Sequence[Sequence[str]] | None = None, *, title: str = "Heads",
                 subtitle: str = "", guide: Sequence[str] = ()) -> None:
        named = layers if isinstance(layers, Mapping) else {"": layers}
        self._layers = list(named.items())
        batch = len(self._layers[0][1]) if self._layers else 0
        queries = [()] * batch if tokens is None else tokens
        keys = queries if key_tokens is None else key_tokens
        self._items = [(" ".join(row) or f"item {i + 1}", list(row), list(column))
                       for i, (row, column) in enumerate(zip(queries, keys))]
        self._words = (title, subtitle), list(guide)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page; the file appears whole or not at all. OSError if it cannot."""
        titles, guide = self._words
        _core.write_report(path, titles, guide, self._layers, self._items)

    def html(self) -> str:
        """The page."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "heads.html"
            self.save(path)
            return path.read_text(encoding="utf-8")

    def _repr_html_(self) -> str:
        return (f'<iframe srcdoc="{html.escape(self.html())}" title="Heads" '
                'style="width: 100%; height: 45rem; border: 0"></iframe>')
