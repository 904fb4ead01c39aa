"""Curves of a ``plot`` reply, in the terminal, in a window or in a picture.

The window and the picture need matplotlib, which pyFAI brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq import drawing
from sisockdaq.errors import ConfigurationError

__all__ = ["Look", "Window", "drawn", "save"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """How curves are shown.

    Attributes
    ----------
    skip, clip : int
        Points left out at the beginning and at the end.
    log_x, log_y : bool
    """

    skip: int = 0
    clip: int = 0
    log_x: bool = False
    log_y: bool = True

    def points(self, graph: dict[str, Any]) -> tuple[Array, Array, Array]:
        """Return q, I and its error; points without a value are left out."""
        x, y, error = (np.asarray(one, np.float64) for one in graph["array"])
        shown = slice(self.skip, len(x) - self.clip)
        x, y, error = x[shown], y[shown], error[shown]
        good = np.isfinite(x) & np.isfinite(y)
        if self.log_x:
            good &= x > 0
        return x[good], y[good], np.nan_to_num(error[good])


def drawn(data: dict[str, Any], look: Look, *, width: int, height: int) -> str:
    """Return all curves of a reply's data as lines of text, one panel each."""
    graphs = data["graphs"]
    lines = [Path(data["filename"]).name]
    each = max((height - 1) // max(len(graphs), 1) - 1, 6)
    for number, graph in enumerate(graphs):
        x, y, _ = look.points(graph)
        labels = [str(one).replace("$", "") for one in [*graph.get("columnLabels", []), "", ""]]  # "$" is TeX's
        lines.append(f"{graph.get('kind', '')} {number}: {labels[1]}{_parameters(graph)}")
        if not len(x):
            lines.append("nothing to draw: no finite values")
            continue
        label = f"log {labels[0]}" if look.log_x else labels[0]
        panel = drawing.curve(np.log10(x) if look.log_x else x, y, width=width, height=each, log=look.log_y)
        lines += [*panel[:-1], _foot(x, label, width)]
    return "\n".join(lines)


def save(data: dict[str, Any], look: Look, path: Path) -> None:
    """Write the curves as a picture.

    Raises
    ------
    ConfigurationError
        matplotlib is missing, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4 * max(len(data["graphs"]), 1)), layout="constrained")
    _paint(figure, data, look)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from None


class Window:
    """A window that shows the newest curves.

    Raises
    ------
    ConfigurationError
        There is no display.
    """

    def __init__(self) -> None:
        import matplotlib
        import matplotlib.pyplot as plt

        if matplotlib.get_backend().lower() in ("agg", "pdf", "svg", "ps", "template"):
            raise ConfigurationError(
                "no window can be opened here", remedy="leave out --window, or write a picture: --save curves.png"
            )
        self._plt: Any = plt
        self._figure: Any = plt.figure(layout="constrained")

    def show(self, data: dict[str, Any], look: Look) -> None:
        """Show curves."""
        self._figure.clf()
        _paint(self._figure, data, look)
        self.wait(0.01)

    def wait(self, seconds: float) -> None:
        """Let the window live for a while; KeyboardInterrupt when it was closed."""
        if not self._plt.fignum_exists(self._figure.number):
            raise KeyboardInterrupt
        self._plt.pause(seconds)


def _paint(figure: Any, data: dict[str, Any], look: Look) -> None:
    graphs = data["graphs"]
    figure.suptitle(Path(data["filename"]).name)
    for number, graph in enumerate(graphs):
        axes = figure.add_subplot(len(graphs), 1, number + 1)
        x, y, error = look.points(graph)
        labels = [*graph.get("columnLabels", []), "", ""]
        axes.plot(x, y)
        low = np.clip(y - error, y[y > 0].min() if look.log_y and (y > 0).any() else None, None)
        axes.fill_between(x, low, y + error, alpha=0.2, linewidth=0)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_xscale("log" if look.log_x else "linear")
        axes.set_yscale("log" if look.log_y else "linear")


def _foot(x: Array, label: str, width: int) -> str:
    """Return the line below a drawing: the ends of its axis, and what it is."""
    left, right = f"{x.min():.4g}", f"{x.max():.4g}"
    indent = " " * 11  # the drawing leaves as much for the numbers beside it
    return f"{indent}{left}{label:^{max(width - len(indent) - len(left) - len(right), 1)}}{right}"


def _parameters(graph: dict[str, Any]) -> str:
    found = graph.get("Integparam") or {}
    number: Callable[[Any], str] = lambda value: f"{value:.4g}" if isinstance(value, int | float) else str(value)  # noqa: E731
    return "".join(f", {name} {number(value)}" for name, value in found.items())
