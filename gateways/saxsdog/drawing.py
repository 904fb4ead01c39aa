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
        An axis with negative values, as that of an azimuth or of most cuts, is linear all the same.
    """

    skip: int = 0
    clip: int = 0
    log_x: bool = False
    log_y: bool = True

    def points(self, graph: dict[str, Any]) -> tuple[Array, Array, Array]:
        """Return q, I and its error; an intensity is NaN where there is none, so that a line is broken there."""
        x, y, error = (np.asarray(one, np.float64) for one in graph["array"])
        shown = slice(self.skip, max(len(x) - self.clip, 0))
        x, y, error = x[shown], np.where(np.isfinite(y), y, np.nan)[shown], np.nan_to_num(error[shown])
        good = np.isfinite(x)
        if self.across(graph):
            good &= x > 0
        return x[good], y[good], error[good]

    def across(self, graph: dict[str, Any]) -> bool:
        """Whether the axis of a curve is logarithmic."""
        return self.log_x and not np.any(np.asarray(graph["array"][0], np.float64) < 0)


def drawn(data: dict[str, Any], look: Look, *, width: int, height: int) -> str:
    """Return all curves of a reply's data as lines of text, one panel each."""
    graphs = data["graphs"]
    lines = [Path(data["filename"]).name]
    each = max((height - 1) // max(len(graphs), 1) - 1, 6)
    for number, graph in enumerate(graphs):
        x, y, _ = look.points(graph)
        labels = [_plain(str(one)) for one in [*graph.get("columnLabels", []), "", ""]]
        lines.append(f"{_title(graph, number)}: {labels[1]}{_parameters(graph)}")
        if not np.isfinite(y).any():
            lines.append("nothing to draw: no finite values")
            continue
        label = f"log {labels[0]}" if look.across(graph) else labels[0]
        panel = drawing.curve(np.log10(x) if look.across(graph) else x, y, width=width, height=each, log=look.log_y)
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
        plt.show(block=False)

    def show(self, data: dict[str, Any], look: Look) -> None:
        """Show curves."""
        self._figure.clf()
        _paint(self._figure, data, look)
        self.wait(0.01)

    def wait(self, seconds: float) -> None:
        """Let the window live for a while; KeyboardInterrupt when it was closed."""
        if not self._plt.fignum_exists(self._figure.number):
            raise KeyboardInterrupt
        # Not `pause`, which brings the window before all others, each time.
        self._figure.canvas.draw_idle()
        self._figure.canvas.start_event_loop(seconds)


def _paint(figure: Any, data: dict[str, Any], look: Look) -> None:
    graphs = data["graphs"]
    figure.suptitle(Path(data["filename"]).name)
    for number, graph in enumerate(graphs):
        axes = figure.add_subplot(len(graphs), 1, number + 1)
        x, y, error = look.points(graph)
        labels = [*graph.get("columnLabels", []), "", ""]
        axes.plot(x, y, linewidth=1)
        low = np.clip(y - error, y[y > 0].min() if look.log_y and (y > 0).any() else None, None)
        axes.fill_between(x, low, y + error, alpha=0.3, linewidth=0)
        axes.set_title(f"{_title(graph, number)}{_parameters(graph)}", fontsize="medium", loc="left")
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_xscale("log" if look.across(graph) else "linear")
        axes.set_yscale("log" if look.log_y and (y > 0).any() else "linear")


def _foot(x: Array, label: str, width: int) -> str:
    """Return the line below a drawing: the ends of its axis, and what it is."""
    left, right = f"{x.min():.4g}", f"{x.max():.4g}"
    indent = " " * 11  # the drawing leaves as much for the numbers beside it
    return f"{indent}{left}{label:^{max(width - len(indent) - len(left) - len(right), 1)}}{right}"


def _title(graph: dict[str, Any], number: int) -> str:
    """Return which curve it is: ``Radial 1 (azimuth)``."""
    name = (graph.get("mask") or {}).get("Name", "")
    return f"{graph.get('kind', '')} {number}{f' ({name})' if name else ''}"


def _plain(label: str) -> str:
    """Return a label without the signs of TeX."""
    return label.replace("$", "").replace("nm^{-1}", "nm⁻¹").replace("_{v}", "_v").replace("_{h}", "_h").strip()


def _parameters(graph: dict[str, Any]) -> str:
    found = graph.get("Integparam") or {}
    if not any(found.values()):  # a curve against the azimuth has none
        return ""
    number: Callable[[Any], str] = lambda value: f"{value:.4g}" if isinstance(value, int | float) else str(value)  # noqa: E731
    return "".join(f", {name} {number(value)}" for name, value in found.items())
