"""A progress bar of an acquisition on the terminal: frames, rate, time left, what was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["describe", "progress_bar"]


def describe(status: Mapping[str, Any]) -> str:
    """Return the part of a status that is beside the bar: rate, time left, data, message."""
    parts = [f"{float(status.get('rate') or 0):.0f} frames/s"]
    if status.get("time_left") is not None:
        parts.append(f"{float(status['time_left']):.0f} s left")
    if status.get("bytes_written"):
        parts.append(f"{float(status['bytes_written']) / 1e6:.0f} MB")
    if status.get("frames_taken_back"):
        parts.append(f"{status['frames_taken_back']} lost")
    if status.get("message"):
        parts.append(str(status["message"]))
    return " · ".join(parts)


@contextmanager
def progress_bar(name: str, shown: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show a bar on stderr while the context lasts; gives a function that takes each status."""
    if not shown:
        yield lambda status: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, told="")

        def show(status: Mapping[str, Any]) -> None:
            done = int(status.get("frames_written") or 0)
            bar.update(task, completed=done, total=status.get("frames"), told=describe(status))

        yield show
