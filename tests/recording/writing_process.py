"""A process that forks recorders to be killed: for each folder on its input, a child writes there until it dies.

It prints for each child ``started PID``, then ``committed N`` after each flush.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from sisockdaq.recording.disk import Recording
from sisockdaq.recording.structure import Block
from sisockdaq.schema import Field

ENTRIES = {"x": Field(timeline="line", units="V"), "s": Field(timeline="line", type="string")}
START = 1_700_000_000.0
ROWS_A_FLUSH = 7
ROWS_A_FILE = 350.0


def text(row: int) -> str:
    """Return the string of a row."""
    return f"nº {row}"


def block(first: int, stop: int) -> Block:
    """Return rows, one a second."""
    texts = np.empty(stop - first, dtype=object)
    texts[:] = [text(row) for row in range(first, stop)]
    return Block(
        "lab", "line", START + np.arange(first, stop), {"x": np.arange(first, stop) * 0.5, "s": texts}, ENTRIES
    )


def say(text: str) -> None:
    """Print a line at once."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def write(folder: Path) -> None:
    """Record until somebody ends this process."""
    recording = Recording(folder, "writer", file_length=ROWS_A_FILE)
    for first in range(0, 10**6, ROWS_A_FLUSH):
        recording.write([block(first, first + ROWS_A_FLUSH)], START + first)
        say(f"committed {first + ROWS_A_FLUSH}")


def main() -> None:
    """Fork a recorder for each line of the input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write(Path(line.strip()))
            os._exit(0)
        say(f"started {child}")
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    main()
