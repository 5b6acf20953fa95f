"""A function of the user's own between the scores and the softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyhead._arguments import type_name
from polyhead._typing import ScoreFunction


def block_function(score_mod: ScoreFunction | None, function: str) -> Callable[..., None] | None:
    """What the library calls with each block of scores; None: it need not."""
    if score_mod is None:
        return None
    if not callable(score_mod):
        raise TypeError(f"{function}: score_mod: got {type_name(score_mod)}; need a function")

    def change(scores: Any, batch: int, head: int, first_query: int, first_key: int) -> None:
        queries = np.arange(first_query, first_query + scores.shape[0])[:, None]
        keys = np.arange(first_key, first_key + scores.shape[1])[None]
        changed = score_mod(scores, batch, head, queries, keys)
        if changed is None:
            raise TypeError(f"{function}: score_mod: returned None; need the new scores")
        try:
            changed = np.asarray(changed)
        except ValueError as error:
            raise ValueError(
                f"{function}: score_mod: returned no array; need the new scores") from error
        if changed.shape != scores.shape:
            raise ValueError(f"{function}: score_mod: returned shape {list(changed.shape)}; need "
                             f"that of its scores, {list(scores.shape)}")
        np.copyto(scores, changed, casting="same_kind")

    return change
