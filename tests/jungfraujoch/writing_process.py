"""A process that forks stream writers to be killed: each line of its input is an address, a folder, a kind of master.

Started once for many kills, as most of the time of such a test goes into starting Python. It prints for each child
``started PID``, then ``safe N`` (images that are flushed) and ``closed NUMBER`` (a data file).
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import cast

from sisockdaq.jungfraujoch import StreamWriter, WriterOptions
from sisockdaq.nexus.layout import MasterLayout


def say(text: str) -> None:
    """Print a line at once."""
    os.write(sys.stdout.fileno(), f"{text}\n".encode())


def write(address: str, folder: Path, master: MasterLayout) -> None:
    """Write until somebody ends this process."""
    options = WriterOptions(folder, [address], flush_interval=0.02, master=master)
    writer = StreamWriter(options, on_file=lambda closed: say(f"closed {closed.number}")).start()
    told, gate = 0, threading.Event()
    while True:
        safe = writer.status()["images"].get("safe", 0)
        if safe > told:
            told = safe
            say(f"safe {safe}")
        gate.wait(0.002)


def main() -> None:
    """Fork a writer for each line of the input."""
    for line in sys.stdin:
        address, folder, master = line.split()
        child = os.fork()
        if child == 0:
            write(address, Path(folder), cast("MasterLayout", master))
            os._exit(0)
        say(f"started {child}")
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    main()
