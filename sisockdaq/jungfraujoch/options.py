"""How the stream writer works; what its command and its node make of their options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sisockdaq.nexus.layout import MasterLayout

__all__ = ["WriterOptions"]


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How the writer works.

    Attributes
    ----------
    root : Path
        Folder that no file leaves.
    connect : sequence of str
        ZeroMQ addresses of the senders' sockets.
    name : str
        Of the source of images in the files.
    republish : str, optional
        ZeroMQ address to bind for the messages as they came.
    notices : str, optional
        ZeroMQ address to bind for finalised files.
    receive_watermark, republish_watermark : int
        Messages that may wait.
    images_per_file : int
        Where the sender does not say.
    file_prefix : str, optional
        Where the sender does not say; ``{series_id}`` and ``{series_unique_id}`` are filled in.
    overwrite : bool
        Whether files of the same name give way, or the series is refused.
    compression : {"bslz4", "none"}
        Of images that come without; the others are stored as they come.
    master : MasterLayout
        How the master shows the images: links to the data files, one virtual dataset over them, or all in one file.
    threads : int
        For packing.
    flush_interval : float
        Time between commits [s]: what a kill may cost.
    end_timeout : float
        How long an end message is waited for, once it should have come [s].
    journal : Path, optional
        SQLite file that remembers the series; None remembers them until the process ends.
    """

    root: Path
    connect: Sequence[str]
    name: str = "stream"
    republish: str | None = None
    notices: str | None = None
    receive_watermark: int = 100
    republish_watermark: int = 1000
    images_per_file: int = 1000
    file_prefix: str | None = None
    overwrite: bool = False
    compression: str = "bslz4"
    master: MasterLayout = "legacy"
    threads: int = 2
    flush_interval: float = 1.0
    end_timeout: float = 10.0
    journal: Path | None = None
