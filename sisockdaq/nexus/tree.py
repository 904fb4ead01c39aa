"""What is to stand in a file, as a tree of groups, datasets and links: pure, nothing here touches a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Dataset", "ExternalLink", "Group", "HardLink", "Node", "Piece", "VirtualDataset"]


@dataclass(slots=True)
class Dataset:
    """A value with attributes; text is stored at fixed length, arrays contiguous.

    Attributes
    ----------
    value : str, number or ndarray
    attributes : dict
    room : int
        Bytes that a text has at least, so that another one can take its place later.
    """

    value: str | float | np.generic | npt.NDArray[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    room: int = 0


@dataclass(slots=True)
class ExternalLink:
    """A link to an object of another file in the same folder."""

    file: str
    path: str


@dataclass(slots=True)
class HardLink:
    """A second name of an object of the same file."""

    path: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The first `rows` rows of a dataset in another file of the same folder."""

    file: str
    path: str
    rows: int


@dataclass(slots=True)
class VirtualDataset:
    """Pieces of other files, one behind the other along the first dimension.

    ``shape`` is that of one row; ``fill`` is what rows read as that their file does not have.
    """

    pieces: Sequence[Piece]
    shape: tuple[int, ...]
    dtype: str
    fill: float
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """A NeXus group."""

    nx_class: str
    items: dict[str, Node] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


Node = Group | Dataset | ExternalLink | HardLink | VirtualDataset
