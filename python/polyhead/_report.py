"""The page of heads."""

from __future__ import annotations

import html
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polyhead import _core
from polyhead._arguments import explained, has_utf8, refuse_masked, type_name
from polyhead._typing import Path


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

    ValueError for shapes that do not fit together, weights below 0 or not finite, more than 32
    million of them, or text with surrogates; TypeError for what is no array of weights, or no text.
    """

    def __init__(self, layers: Any, tokens: Sequence[Sequence[str]] | None = None,
                 key_tokens: Sequence[Sequence[str]] | None = None, *, title: str = "Heads",
                 subtitle: str = "", guide: Sequence[str] = ()) -> None:
        named = layers if isinstance(layers, Mapping) else {"": layers}
        self._layers = list(named.items())
        _texts("names of layers", named)
        queries = [[]] * self._batch() if tokens is None else _rows("tokens", tokens)
        keys = queries if key_tokens is None else _rows("key_tokens", key_tokens)
        if len(keys) != len(queries):
            raise ValueError(f"Report: key_tokens: lists of {len(keys)} batch items; need "
                             f"{len(queries)}")
        self._items = [(" ".join(row) or f"item {i + 1}", row, column)
                       for i, (row, column) in enumerate(zip(queries, keys))]
        self._words = (_text("title", title), _text("subtitle", subtitle)), _texts("guide", guide)

    def _batch(self) -> int:
        """Of the first layer; save refuses what is no array."""
        shape = getattr(self._layers[0][1], "shape", ()) if self._layers else ()
        return int(shape[0]) if shape else 1

    def save(self, path: Path) -> None:
        """Writes the page; the file appears whole or not at all. OSError if it cannot."""
        titles, guide = self._words
        refuse_masked("Report", ["weights"] * len(self._layers), [w for _, w in self._layers])
        try:
            _core.write_report(path, titles, guide, self._layers, self._items)
        except TypeError as error:
            raise explained(error, Report.save, locals()) from None

    def html(self) -> str:
        """The page."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "heads.html"
            self.save(path)
            return path.read_text(encoding="utf-8")

    def _repr_html_(self) -> str:
        return (f'<iframe srcdoc="{html.escape(self.html())}" title="Heads" '
                'style="width: 100%; height: 45rem; border: 0"></iframe>')


def _texts(argument: str, texts: Any) -> list[str]:
    """The strings that were given."""
    if not isinstance(texts, Iterable) or isinstance(texts, str):
        raise TypeError(f"Report: {argument}: got {type_name(texts)}; need a list of strings")
    return [_text(argument, text) for text in texts]


def _text(argument: str, text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"Report: {argument}: got {type_name(text)}; need strings")
    if not has_utf8(text):
        raise ValueError(f"Report: {argument}: got {text!r}; need text without surrogates")
    return text


def _rows(argument: str, rows: Any) -> list[list[str]]:
    """A list of strings for each batch item."""
    if not isinstance(rows, Iterable) or isinstance(rows, str):
        raise TypeError(f"Report: {argument}: got {type_name(rows)}; need a list of strings for each "
                        "batch item")
    return [_texts(f"{argument}[{i}]", row) for i, row in enumerate(rows)]
