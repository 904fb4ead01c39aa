"""A process that forks writers to be killed: for each folder on its input, a child writes there until it dies.

Started once for many kills, as most of the time of such a test goes into starting Python. It prints for each child
``started PID``, then ``committed N`` after each commit and ``closed NUMBER`` after each closed file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sisockdaq.nexus.fileset import AcquisitionFiles, ClosedFile
from sisockdaq.nexus.nxmx import MasterContent
from tests.nexus import data

IMAGES_PER_FILE = 150
COMMIT_EVERY = 20
LAST = 100_000


def say(text: str) -> None:
    """Print a line at once."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def write(folder: Path) -> None:
    """Write frames until somebody ends this process."""
    plan = data.plan(IMAGES_PER_FILE)

    def closed(file: ClosedFile) -> None:
        say(f"closed {file.number}")

    files = AcquisitionFiles(folder, "run", plan, MasterContent("run", plan.image), on_closed=closed)
    payload = data.payload(0)
    for index in range(LAST):
        files.write_image(index, payload, data.header(index, lost=index % 7 == 0), now=0.0)
        files.write_results("integrator", index, data.frame_time(index), data.results(index))
        if index % COMMIT_EVERY == COMMIT_EVERY - 1:
            files.commit(0.0)
            say(f"committed {index + 1}")


def main() -> None:
    """Fork a writer for each line of the input."""
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
