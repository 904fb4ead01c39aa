"""Raw packets of one acquisition: recorded from the moment it is armed until its last frame, whatever came.

A folder holds ``<port>.dat`` (`recording`) and, once the acquisition has ended, ``acquisition.json``: which frames
belong to it, how many packets of them were recorded, and the source's counts. Packets that came in between but belong
to no frame of the acquisition are in the files too; `recording.Recording` passes them over, so that a replay gives the
acquisition's frames and no others.

A full disk ends the recording. An acquisition whose only trace it would have been fails with it; one that also has
images goes on without.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from sisockdaq.detector.recording import MANIFEST, PacketFormat, RecordingWriter
from sisockdaq.errors import StorageError
from sisockdaq.frames.raw import RawWish

__all__ = ["AcquisitionRecording"]

_MOST_OPEN = 4096
"""Frames whose packets are counted before they are known to belong to the acquisition; then the oldest are let go."""

log = logging.getLogger(__name__)


class AcquisitionRecording:
    """Records the packets of one acquisition; satisfies `recorders.AcquisitionRecorder`.

    Parameters
    ----------
    wish : RawWish
    acquisition : str
    ports : sequence of int
        One a stream.
    form : PacketFormat
        Of the packets, with the field that numbers this receiver's frames.
    as_user : context manager, optional
        In which files are made; entered more than once.

    Raises
    ------
    StorageError
        When the folder cannot be made or holds a recording.
    """

    def __init__(
        self,
        wish: RawWish,
        acquisition: str,
        ports: Sequence[int],
        form: PacketFormat,
        as_user: AbstractContextManager[None] | None = None,
    ) -> None:
        self.wish, self.acquisition = wish, acquisition
        self.folder = Path(wish.folder)
        self._form, self._ports = form, list(ports)
        self._as_user = nullcontext() if as_user is None else as_user
        with self._as_user:
            self._writer = RecordingWriter(self.folder, ports)
        kind = form.header[form.frame]
        self._at, self._end = form.offset, form.offset + kind.itemsize
        self._pending: dict[int, int] = {}
        self._spans: list[list[int]] = []
        self._packets = self._frames = 0

    @property
    def error(self) -> StorageError | None:
        """What ended the recording, if anything did."""
        return self._writer.error

    @property
    def needed(self) -> bool:
        """Whether nothing else is kept of the acquisition's frames."""
        return self.wish.mode == "instead"

    def write(self, stream: int, datagram: memoryview) -> None:
        """Append one datagram of a stream."""
        before = self._writer.datagrams
        self._writer.write(stream, datagram)
        if self._writer.datagrams == before or len(datagram) < self._end:
            return
        number = int.from_bytes(datagram[self._at : self._end], "little")
        if self._spans and self._spans[-1][0] <= number <= self._spans[-1][1]:  # late, or twice
            self._packets += 1
            return
        self._pending[number] = self._pending.get(number, 0) + 1
        if len(self._pending) > _MOST_OPEN:
            self._pending.pop(next(iter(self._pending)))

    def saw(self, number: int) -> None:
        """Note that a frame of that number belongs to the acquisition."""
        packets = self._pending.pop(number, 0)
        self._packets += packets
        self._frames += packets > 0
        if self._spans and number == self._spans[-1][1] + 1:
            self._spans[-1][1] = number
        else:
            self._spans.append([number, number])

    def close(self, counts: dict[str, Any], reason: str) -> dict[str, Any]:
        """Finish the files; return ``{"packets_recorded", "frames_recorded"}`` for the ledger."""
        self._writer.close()
        recorded = {"packets_recorded": self._packets, "frames_recorded": self._frames}
        manifest = {
            "acquisition": self.acquisition,
            "reason": reason,
            "ports": self._ports,
            "number": self._form.frame,
            "frames": self._spans,
            "datagrams": self._writer.datagrams,
            "counts": {**counts, **recorded},
            "error": str(self.error) if self.error is not None else None,
        }
        try:
            with self._as_user:
                (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        except OSError as error:
            log.error("%s is not written: %s", self.folder / MANIFEST, error.strerror)
        return recorded
