"""What an acquisition asks its source to record: raw packets beside or instead of images. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from sisockdaq.errors import StorageError

__all__ = ["CAN_RECORD", "RAW_KEY", "RAW_MODES", "RawMode", "RawWish"]

RawMode = Literal["beside", "instead"]
RAW_MODES: tuple[RawMode, ...] = ("beside", "instead")

RAW_KEY = "raw_packets"
"""Key of ``Arm.meta`` that asks for raw packets: a `RawWish` as a mapping."""

CAN_RECORD = "records_packets"
"""Key of ``Description.meta``: true where the source can record its packets."""


@dataclass(frozen=True, slots=True)
class RawWish:
    """What an acquisition wants to have recorded.

    Attributes
    ----------
    mode : str
        "beside" or "instead" of images.
    folder : str
        Absolute; made, and must hold no recording.
    user_id : int or None
        Whose the files are; None: the receiver's own user.
    """

    mode: RawMode
    folder: str
    user_id: int | None = None

    def to_meta(self) -> dict[str, Any]:
        """Return what goes under `RAW_KEY`."""
        return {"mode": self.mode, "folder": self.folder, "user_id": self.user_id}

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> RawWish | None:
        """Read an acquisition's ``meta``; None where no packets are asked for.

        Raises
        ------
        StorageError
            The wish cannot be understood.
        """
        given = meta.get(RAW_KEY)
        if given is None:
            return None
        try:
            mode, folder, user = given["mode"], str(given["folder"]), given.get("user_id")
        except (TypeError, KeyError, AttributeError):
            raise StorageError(f"{RAW_KEY} is {given!r}: it must have a mode and a folder") from None
        if mode not in RAW_MODES or not PurePosixPath(folder).is_absolute():
            raise StorageError(f"{RAW_KEY}: {mode!r} into {folder!r}: beside or instead, into an absolute folder")
        return cls(mode, folder, user)
