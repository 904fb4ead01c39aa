"""Archive and live samples of one field, joined into one answer.

Pure. A sample is known by its time: the same float64 in the live cache, in the file and in curves made from the frame
(`sisockdaq.frames.messages`). So the join is the sorted union by exact time, every sample once; where two sources hold
the same time, the one that is given first (the archive) is taken.

``finalized_until`` of the joined answer stays honest: it goes no further than the source that is furthest behind,
unless another source that is ahead has held everything from there on (``covers_from``), so that nothing can still
appear in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sisockdaq.schema import Samples

__all__ = ["finalized_until", "merge"]


def merge(parts: Sequence[Samples]) -> tuple[Samples, list[str]]:
    """Join the samples of one field from several sources.

    Parameters
    ----------
    parts : sequence of Samples
        Each sorted by time; the first has precedence where times are equal. At least one.

    Returns
    -------
    samples : Samples
        Each time once, in order, with the timeline's name of the first part that has samples.
    problems : list of str
        What could not be joined: samples whose arrays have another shape than the newest.
    """
    filled = [part for part in parts if len(part)]
    if not filled:
        base = parts[0]
        return Samples(base.t, base.values, base.timeline, finalized_until(parts), base.covers_from), []
    filled, problems = _one_shape(filled)
    final, covers = finalized_until(parts), _covers_from(parts)
    first = filled[0]
    if len(filled) == 1 and np.all(first.t[1:] > first.t[:-1]):
        return Samples(first.t, first.values, first.timeline, final, covers), problems
    # np.unique names the first of equals, and earlier parts come first: precedence and order in one step.
    t, rows = np.unique(np.concatenate([part.t for part in filled]), return_index=True)
    values = np.concatenate([part.values for part in _one_kind(filled)])
    return Samples(t, values[rows], first.timeline, final, covers), problems


def finalized_until(parts: Sequence[Samples]) -> float | None:
    """Return the time before which none of the sources' samples will change; None when nothing asked will.

    A source without samples that gives no time says nothing about this, and is left out.
    """
    telling = [part for part in parts if len(part) or part.finalized_until is not None]
    ends = [math.inf if part.finalized_until is None else part.finalized_until for part in telling]
    if not ends:
        return None
    reached = min(ends)
    ahead = True
    while ahead:
        ahead = False
        for part, end in zip(telling, ends, strict=True):
            if end > reached and part.covers_from is not None and part.covers_from <= reached:
                reached, ahead = end, True
    return None if math.isinf(reached) else reached


def _covers_from(parts: Sequence[Samples]) -> float | None:
    """Return the earliest time from which one source holds everything; the union holds no less."""
    return min((part.covers_from for part in parts if part.covers_from is not None), default=None)


def _one_shape(parts: list[Samples]) -> tuple[list[Samples], list[str]]:
    """Keep the parts whose samples have the shape of the newest sample."""
    shape = max(parts, key=lambda part: float(part.t[-1])).values.shape[1:]
    fitting = [part for part in parts if part.values.shape[1:] == shape]
    problems = [
        f"{len(part)} samples of shape {part.values.shape[1:]} were left out; the newest are of shape {shape}"
        for part in parts
        if part.values.shape[1:] != shape
    ]
    return fitting, problems


def _one_kind(parts: list[Samples]) -> list[Samples]:
    """Make numbers and objects (strings, None) joinable without turning one into the other."""
    kinds = {part.values.dtype.kind for part in parts}
    mixed_whole = {"i", "u"} <= kinds
    if "O" not in kinds and not mixed_whole:
        return parts
    # int64 with uint64 would become float64 and lose whole numbers beyond 2⁵³.
    return [Samples(part.t, part.values.astype(object), part.timeline) for part in parts]
