"""What a receiver demands of whoever records its packets."""

from __future__ import annotations

from typing import Any, Protocol

from sisockdaq.errors import SisockdaqError

__all__ = ["AcquisitionRecorder", "Recorder"]


class Recorder(Protocol):
    """Takes every datagram as it came, before anything is made of it."""

    def write(self, stream: int, datagram: memoryview) -> None:
        """Keep one datagram of a stream."""


class AcquisitionRecorder(Recorder, Protocol):
    """A recorder for one acquisition; see `raw.AcquisitionRecording`."""

    @property
    def error(self) -> SisockdaqError | None:
        """What ended the recording."""

    @property
    def needed(self) -> bool:
        """Whether the acquisition makes no sense without it."""

    def saw(self, number: int) -> None:
        """Note that a frame belongs to the acquisition."""

    def close(self, counts: dict[str, Any], reason: str) -> dict[str, Any]:
        """Finish; return what goes into the ledger."""
