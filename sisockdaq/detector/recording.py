"""Recorded packets: one file a UDP port, ``<port>.dat``, each record a length and a datagram as it came.

A record is a u64 little-endian length, then that many bytes: the format in which the EIGER 9M sample was published
(std_detector_buffer). A recording is a folder of such files, or a tar archive of one (``.tar``, ``.tar.gz``,
``.tar.xz``), which is unpacked to a temporary folder as it is read, so that memory stays bounded.

`RecordingWriter` writes the same format from a receiver, everything included that came to its ports. Where the folder
also says which frames are those of one acquisition (`MANIFEST`, written by `raw`), only they are shown.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sisockdaq.detector import gigafrost
from sisockdaq.detector.formats import HEADER
from sisockdaq.errors import FileUnreadable, StorageError

__all__ = [
    "BUNCH_PACKETS",
    "GIGAFROST_PACKETS",
    "MANIFEST",
    "SLS_PACKETS",
    "PacketFormat",
    "Recording",
    "RecordingWriter",
    "StreamRecording",
]

log = logging.getLogger(__name__)

MANIFEST = "acquisition.json"
"""File of a recording that is of one acquisition only: its frames, as ``"frames": [[first, last], …]``."""

_LENGTH = struct.Struct("<Q")
_LARGEST_DATAGRAM = 65535
_NO_FRAME = -1


@dataclass(frozen=True)
class PacketFormat:
    """Where recorded packets have their numbers.

    Attributes
    ----------
    header : dtype
    frame : str
        Field of the frame's number.
    packet : str
        Field of what tells a stream's packets of one frame apart.
    """

    header: np.dtype[Any]
    frame: str
    packet: str

    @property
    def offset(self) -> int:
        """Where the frame's number begins [bytes]."""
        places = self.header.fields
        assert places is not None
        return int(places[self.frame][1])

    def number(self, datagram: npt.NDArray[np.uint8], field: str) -> int:
        """Return a field of a datagram's header; −1 where it is too short for one."""
        size = self.header.itemsize
        return int(datagram[:size].view(self.header)[field][0]) if len(datagram) >= size else _NO_FRAME

    def set_frame(self, datagram: npt.NDArray[np.uint8], number: int) -> None:
        """Put a frame number into a datagram; one too short for a header stays as it is."""
        if len(datagram) >= self.header.itemsize:
            limit = np.iinfo(self.header[self.frame]).max
            datagram[: self.header.itemsize].view(self.header)[self.frame] = number & int(limit)


SLS_PACKETS = PacketFormat(HEADER, "frame_number", "packet_number")
BUNCH_PACKETS = PacketFormat(HEADER, "bunch_id", "packet_number")
"""Packets of a receiver that numbers its frames by the bunch id."""
GIGAFROST_PACKETS = PacketFormat(gigafrost.HEADER, "frame_index", "starting_row")


@dataclass(frozen=True)
class StreamRecording:
    """The records of one port, in the order in which they came.

    Attributes
    ----------
    port : int
    data : ndarray of uint8
        The whole file, mapped.
    begin, length : ndarray of int64, (records,)
        Where each datagram lies in it.
    frame : ndarray of int64, (records,)
        Frame number of each; a record too short for a header belongs to the frame before it (−1 where there is none).
    """

    port: int
    data: npt.NDArray[np.uint8]
    begin: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]

    def datagram(self, record: int) -> npt.NDArray[np.uint8]:
        """Return one datagram; a view of the file."""
        return self.data[self.begin[record] : self.begin[record] + self.length[record]]

    @classmethod
    def of(cls, path: Path) -> StreamRecording:
        """Map a file and find its records.

        Raises
        ------
        FileUnreadable
            When it does not consist of whole records.
        """
        if not path.stem.isdigit():
            raise FileUnreadable(
                f"{path.name} is not named by a UDP port", remedy="records of port 50020 are in 50020.dat"
            )
        if path.stat().st_size == 0:
            none = np.zeros(0, np.int64)
            return cls(int(path.stem), np.zeros(0, np.uint8), none, none, none)
        data = np.memmap(path, np.uint8, "r")
        begin, length = _records(data, path)
        return cls(int(path.stem), data, begin, length, _frames(data, begin, length, SLS_PACKETS))


class Recording:
    """Recorded packets of a detector; a context manager that removes what it unpacked.

    Parameters
    ----------
    path : Path
        A folder of ``<port>.dat`` files, or a tar archive of them.

    Attributes
    ----------
    streams : list of StreamRecording
        By ascending port; those of one acquisition in its receiver's own order.
    format : PacketFormat
        Of the packets: slsDetector's (JUNGFRAU, EIGER) or the GigaFRoST's; found from the packets themselves.
    acquisition : str or None
        The acquisition that it is of; None where everything that came was recorded.

    Raises
    ------
    FileUnreadable
        When it is missing, broken or empty.
    """

    def __init__(self, path: Path) -> None:
        self._unpacked: Path | None = None
        folder = path
        try:
            if path.is_file():
                folder = self._unpacked = Path(tempfile.mkdtemp(prefix="sisockdaq-recording-"))
                _unpack(path, folder)
            elif not path.is_dir():
                raise FileUnreadable(
                    f"there is no recording {path}", remedy="name a folder of <port>.dat files or a tar of one"
                )
            files = sorted(folder.glob("*.dat"), key=lambda file: (len(file.stem), file.stem))
            if not files:
                raise FileUnreadable(f"{path} holds no <port>.dat files")
            self.streams = sorted((StreamRecording.of(file) for file in files), key=lambda stream: stream.port)
            about = _Manifest.of(folder / MANIFEST)
            self.acquisition, self._spans = about.acquisition, about.spans
            self.streams.sort(key=lambda stream: about.ports.index(stream.port) if stream.port in about.ports else -1)
            self.format = BUNCH_PACKETS if about.number == BUNCH_PACKETS.frame else SLS_PACKETS
            if _are_of_gigafrost(self.streams):
                self.format = GIGAFROST_PACKETS
            if self.format is not SLS_PACKETS:
                self.streams = [
                    replace(stream, frame=_frames(stream.data, stream.begin, stream.length, self.format))
                    for stream in self.streams
                ]
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> list[int]:
        """The ports, in the order of the streams."""
        return [stream.port for stream in self.streams]

    @property
    def frames(self) -> list[int]:
        """All frame numbers, ascending; those of the acquisition only, where it is of one."""
        seen = np.unique(np.concatenate([stream.frame for stream in self.streams]))
        if self._spans is not None:
            wanted = np.zeros(len(seen), bool)
            for first, last in self._spans:
                wanted |= (seen >= first) & (seen <= last)
            seen = seen[wanted]
        return [int(number) for number in seen if number != _NO_FRAME]

    def close(self) -> None:
        """Remove what was unpacked."""
        if self._unpacked is not None:
            shutil.rmtree(self._unpacked, ignore_errors=True)
            self._unpacked = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordingWriter:
    """Write what comes to a receiver's ports; satisfies `recorders.Recorder`.

    A full disk ends the recording, not the receiving: it is logged once, and ``error`` keeps the reason.

    Parameters
    ----------
    folder : Path
        Made; must hold no recording yet.
    ports : sequence of int
        One a stream.

    Raises
    ------
    StorageError
        When the folder cannot be made or holds a recording.
    """

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.error: StorageError | None = None
        self.datagrams = 0
        self._files: list[BinaryIO] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.glob("*.dat")):
                raise StorageError(f"{folder} holds a recording already", remedy="name another folder")
            self._files = [(folder / f"{port}.dat").open("xb") for port in ports]
        except OSError as error:
            raise StorageError(f"cannot record into {folder}: {error.strerror}") from None

    def write(self, stream: int, datagram: memoryview) -> None:
        """Append one datagram."""
        if self.error is not None:
            return
        try:
            self._files[stream].write(_LENGTH.pack(len(datagram)))
            self._files[stream].write(datagram)
            self.datagrams += 1
        except OSError as error:
            self.error = StorageError(f"recording ended after {self.datagrams} packets: {error.strerror}")
            log.error("%s", self.error)

    def close(self) -> None:
        """Finish the files."""
        for file in self._files:
            try:
                file.close()
            except OSError as error:
                self.error = self.error or StorageError(f"the recording {file.name} is not whole: {error.strerror}")
                log.error("%s", self.error)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the ``.dat`` members and the manifest of a tar archive, flat, by their own names."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                wanted = member.name.endswith(".dat") or Path(member.name).name == MANIFEST
                source = tar.extractfile(member) if member.isfile() and wanted else None
                if source is not None:
                    with (folder / Path(member.name).name).open("xb") as target:
                        shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(":") if str(error) else "it is cut short"
        raise FileUnreadable(
            f"{archive} cannot be unpacked: {reason}", remedy="it must be a whole tar archive"
        ) from None


@dataclass(frozen=True)
class _Manifest:
    """What a recording says of itself; nothing where it was of all that came."""

    acquisition: str | None = None
    ports: tuple[int, ...] = ()
    number: str = ""
    spans: list[tuple[int, int]] | None = None

    @classmethod
    def of(cls, path: Path) -> _Manifest:
        try:
            found = json.loads(path.read_text())
            spans = [(int(first), int(last)) for first, last in found["frames"]]
            ports = tuple(int(port) for port in found["ports"])
            return cls(str(found["acquisition"]), ports, str(found["number"]), spans)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileUnreadable(
                f"{path} cannot be read: {error}", remedy="without that file, everything that came is replayed"
            ) from None


def _records(data: npt.NDArray[np.uint8], path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first = _length_at(data, 0, path)
    step = first + _LENGTH.size
    if len(data) % step == 0:
        lengths = np.ndarray(len(data) // step, "<u8", data, strides=(step,))
        if (lengths == first).all():  # the usual case: packets of one size
            return np.arange(len(lengths)) * step + _LENGTH.size, lengths.astype(np.int64)
    begins, sizes, at = [], [], 0
    while at < len(data):
        size = _length_at(data, at, path)
        begins.append(at + _LENGTH.size)
        sizes.append(size)
        at += _LENGTH.size + size
    return np.array(begins, np.int64), np.array(sizes, np.int64)


def _length_at(data: npt.NDArray[np.uint8], at: int, path: Path) -> int:
    length = int(_LENGTH.unpack_from(data[at : at + _LENGTH.size].tobytes().ljust(_LENGTH.size, b"\xff"))[0])
    if length > _LARGEST_DATAGRAM or at + _LENGTH.size + length > len(data):
        raise FileUnreadable(
            f"{path.name}: no whole record at byte {at}", remedy="is it a recording of packets, and complete?"
        )
    return length


def _frames(
    data: npt.NDArray[np.uint8], begin: npt.NDArray[np.int64], length: npt.NDArray[np.int64], form: PacketFormat
) -> npt.NDArray[np.int64]:
    if not len(begin):
        return np.zeros(0, np.int64)
    places = form.header.fields
    assert places is not None
    kind, offset = places[form.frame][:2]
    octets: Any = data[np.minimum(begin[:, None] + offset + np.arange(kind.itemsize), len(data) - 1)]
    numbers = octets.copy().view(kind)[:, 0].astype(np.int64)
    known = length >= form.header.itemsize
    last = np.maximum.accumulate(np.where(known, np.arange(len(begin)), -1))
    return np.where(last >= 0, numbers[last], _NO_FRAME).astype(np.int64)


def _are_of_gigafrost(streams: Sequence[StreamRecording]) -> bool:
    """Whether all packets begin as a GigaFRoST's, and those of no two ports name the same quadrant and link.

    An slsDetector packet begins with its frame's number, which is the same for all ports.
    """
    links = []
    for stream in streams:
        begin = stream.begin[stream.length >= gigafrost.HEADER_BYTES]
        if not len(begin):
            continue
        if (stream.data[begin] != gigafrost.PROTOCOL).any():
            return False
        links.append(int(stream.data[begin[0] + 3]) >> 5)
    return len(links) > 1 and len(set(links)) == len(links)
