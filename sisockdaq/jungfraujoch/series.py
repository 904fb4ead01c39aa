"""One series on its way from messages to files: what is taken, what is left out, and why. For one thread.

Policies: the first copy of an image counts; an image beyond the announced number, of another shape or type, or without
pixels is left out and counted; packed pixels are stored as they came, never unpacked; pixels that come without are
packed in a thread pool (or stored plain). Of several channels (thresholds) the first is written.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import AcquisitionRefused, FrameSourceError, SisockdaqError
from sisockdaq.frames.bitshuffle import compress_lz4
from sisockdaq.frames.ledger import ConsumerPart, Ledger
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.frames.stream2 import EncodedArray, ImageMessage, OtherMessage
from sisockdaq.jungfraujoch.dialect import Header, calibration_arrays, default_error_value, image_time
from sisockdaq.jungfraujoch.files import SeriesFiles
from sisockdaq.jungfraujoch.folder import prepare_folder
from sisockdaq.jungfraujoch.metadata import Metadata
from sisockdaq.jungfraujoch.options import WriterOptions
from sisockdaq.jungfraujoch.results import ImageResults, scalar
from sisockdaq.nexus.fileset import LARGEST_GAP, ClosedFile
from sisockdaq.nexus.layout import OPEN_ENDED, DataFilePlan, ImagePlan, resolve_prefix
from sisockdaq.nexus.nxmx import MasterContent
from sisockdaq.nexus.packing import PackedFrame, Packer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Counts", "Series"]

_COMPRESSION_OF_FILE = {"bslz4": "bslz4", "lz4": "lz4", "bszstd": "zstd", "none": "none"}
"""Compression of a message → of `ImagePlan`."""

_NAN = float("nan")


@dataclass(slots=True)
class Counts:
    """Images of a series.

    Attributes
    ----------
    received : int
        All that came, whatever became of them.
    written : int
        In files.
    duplicates, late, out_of_range, refused : int
        Left out: had come before; came after their file was closed; beyond the announced number; of another shape or
        type, or damaged.
    other_channels : int
        Images of further channels, which are not written.
    discarded : int
        Came after a failure or a cancel.
    missing : int
        Known at the end: filled with the error value, or not there at all.
    results_left_out, spots_cut : int
        Results of images that the files have no room for, and spots beyond the most in an image.
    metadata_images, metadata_left_out : int
        Images that metadata messages told of, and values of theirs that the master has no place for (`metadata`).
    """

    received: int = 0
    written: int = 0
    duplicates: int = 0
    late: int = 0
    out_of_range: int = 0
    refused: int = 0
    other_channels: int = 0
    discarded: int = 0
    missing: int = 0
    results_left_out: int = 0
    spots_cut: int = 0
    metadata_images: int = 0
    metadata_left_out: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class _Pixels:
    """An image without packing, as the packer takes it."""

    packet_mask: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def __init__(self, header: FrameHeader, pixels: npt.NDArray[Any]) -> None:
        self.header, self.pixels = header, pixels

    def valid(self) -> bool:
        return True

    def release(self, *, used: bool = True) -> None:
        """Nothing to give back."""

    def __enter__(self) -> _Pixels:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to give back."""


class Series:
    """A series that is being written.

    Parameters
    ----------
    header : Header
    options : WriterOptions
    on_closed : callable
        Called with each `ClosedFile`.

    Raises
    ------
    AcquisitionRefused
        When the prefix leads nowhere good, or files exist.
    StorageError
        When the disk refuses; also from all methods that write.
    """

    def __init__(self, header: Header, options: WriterOptions, on_closed: Callable[[ClosedFile], None]) -> None:
        self.header, self.options = header, options
        self.counts = Counts()
        self.problem = ""
        self.folder, self.prefix = resolve_prefix(options.root, header.file_prefix)
        self.alone = header.makes_master is None or len(options.connect) > 1
        if options.master == "integrated" and not self.alone and not header.makes_master:
            raise AcquisitionRefused(
                f"{header.file_prefix} cannot be written as one file: its sender shares the images between receivers",
                remedy="give all of its addresses to one writer, or choose the master layout legacy or vds",
            )
        prepare_folder(self.folder, self.prefix, overwrite=options.overwrite, shared=not self.alone)
        self.files: SeriesFiles | None = None
        self.started = time.time()
        self._armed_at = _timestamp(header.facts.get("arm_date"))
        self._on_closed = on_closed
        self._metadata = Metadata()
        self._results: ImageResults | None = None
        self._calibration: dict[str, npt.NDArray[Any]] = dict(header.tables)
        self._packer: Packer | None = None
        self._waiting: deque[PackedFrame] = deque()
        self._highest = -1

    @property
    def plan(self) -> DataFilePlan | None:
        """What the files are made for; known with the first image."""
        return self.files.plan if self.files is not None else None

    @property
    def complete(self) -> bool:
        """Whether all announced images have come."""
        announced = self.header.number_of_images
        return announced is not None and self.counts.written + len(self._waiting) >= announced

    def image(self, message: ImageMessage, now: float) -> None:
        """Take an image; `now` is UNIX time [s]."""
        counts = self.counts
        counts.received += 1
        index = message.image_id
        if not self._in_range(index):
            counts.out_of_range += 1
            return
        try:
            encoded = self._channel(message)
            files = self._files_for(encoded, message.fields)
        except FrameSourceError as error:
            self._refuse(error)
            return
        outcome = files.take(index)
        if outcome == "new":
            self._highest = max(self._highest, index)
            header = _frame_header(message, now, self._armed_at)
            self._take_results(files, index, header.time, message.fields)
            self._store(files, index, encoded, header)
        elif outcome == "duplicate":
            counts.duplicates += 1
        else:
            counts.late += 1

    def join(self, header: Header) -> None:
        """Take the start message of a further sender of this series."""
        if header.makes_master:
            self.header.makes_master = True
            if self.files is not None:
                self.files.makes_master = True

    def calibration(self, message: OtherMessage) -> None:
        """Take a calibration message."""
        try:
            arrays = calibration_arrays(message, self.header.shape)
        except FrameSourceError as error:
            self.problem = error.message
            return
        self._calibration.update(arrays)
        if self.files is not None:
            if not self.files.add_calibration(arrays):
                self.problem = "calibration came after the first image: too late for an integrated master"
            self.files.makes_master = self._makes_master()

    def metadata(self, message: OtherMessage) -> None:
        """Take a metadata message, for the master."""
        kept = self._metadata
        kept.add(message.fields)
        integrated = self.options.master == "integrated"
        self.counts.metadata_images = kept.images
        self.counts.metadata_left_out = kept.left_out + (kept.numbers if integrated else 0)
        if integrated and kept.images:
            self.problem = "metadata of images is left out: an integrated master has no place for it"

    def drain(self, *, wait: bool = False) -> None:
        """Write what has been packed; with `wait`, everything."""
        while self._waiting and (wait or self._waiting[0].payload.done()):
            self._write_oldest()

    def _write_oldest(self) -> None:
        """Write the image that the packer has had for longest, once it is packed; its buffer is free then."""
        packed = self._waiting.popleft()
        try:
            payload = packed.payload.result()
            if payload is not None and self.files is not None:
                self._write(self.files, packed.header.index, payload, packed.header)
        finally:
            packed.recycle()

    @property
    def pending_bytes(self) -> int:
        """Size of the results that wait for the next commit."""
        return self.files.pending_bytes if self.files is not None else 0

    @property
    def waiting(self) -> int:
        """Images that are being packed."""
        return len(self._waiting)

    def commit(self, now: float) -> None:
        """Make what is written readable for good."""
        if self.files is not None:
            self.files.commit(now)

    def finish(self, collected: int | None) -> None:
        """Write what is left, close the files and count what is missing.

        Parameters
        ----------
        collected : int, optional
            Images that the detector took, as the end message says.
        """
        self.drain(wait=True)
        expected = collected if collected is not None else self.header.number_of_images
        if self.files is None and self.header.shape is not None and self.header.dtype is not None:
            # A series without images still has a master that says so.
            plan = self._plan(self.header.shape, np.dtype(self.header.dtype), "bslz4", {})
            self.files = self._make_files(plan)
        if self.files is not None:
            self.files.finish(expected)
        if self.alone and expected is not None:
            self.counts.missing = max(0, expected - self.counts.written)
        elif self.files is not None:
            self.counts.missing = sum(closed.rows - closed.images for closed in self.files.closed)

    def abandon(self) -> None:
        """Save what can be saved after a failure."""
        for packed in self._waiting:
            packed.payload.exception()
            packed.recycle()
        self.counts.discarded += len(self._waiting)
        self._waiting.clear()
        if self.files is not None:
            self.files.abandon()

    def ledger(self, reason: str) -> dict[str, Any]:
        """Return the sums of this series: what came is published, what was left out is dropped by this writer."""
        counts = self.counts
        left_out = counts.refused + counts.late + counts.discarded
        came = counts.written + left_out
        missing = max(0, counts.missing - left_out)
        return Ledger(
            self.header.file_prefix,
            reason,
            frames_expected=came + missing,
            frames_complete=came,
            frames_dropped={"unknown": missing},
            frames_published=came,
            consumers={
                self.options.name: ConsumerPart(
                    "lossless", taken=counts.written, dropped=left_out, counts={"frames_written": counts.written}
                )
            },
        ).to_dict()

    def close(self) -> None:
        """End the threads."""
        if self._packer is not None:
            self._packer.close()

    def _in_range(self, index: int) -> bool:
        announced = self.header.number_of_images
        if announced is not None and index >= announced:
            return False
        if self.options.master == "integrated" and index >= OPEN_ENDED:
            return False
        # Where files are many, a gap costs nothing before its images come; one file has a row for each.
        bounded = announced is None or self.options.master == "integrated"
        return not bounded or index - self._highest <= LARGEST_GAP

    def _channel(self, message: ImageMessage) -> EncodedArray:
        names = [name for name in self.header.channels if name in message.data] or list(message.data)
        self.counts.other_channels += len(message.data) - 1
        return message.data[names[0]]

    def _refuse(self, error: SisockdaqError) -> None:
        self.counts.refused += 1
        self.problem = error.message

    def _files_for(self, encoded: EncodedArray, fields: Mapping[str, Any]) -> SeriesFiles:
        """Return the files, made for the first image; raise `FrameSourceError` for one that does not belong there."""
        shape, dtype = encoded.shape, encoded.dtype
        if len(shape) != 2 or 0 in shape:
            raise FrameSourceError(f"image of shape {shape}: there are no pixels in two dimensions")
        if self.files is None:
            ny, nx = self.header.shape or shape
            wanted = np.dtype(self.header.dtype) if self.header.dtype else dtype
            self._check(encoded, (ny, nx), wanted)
            plan = self._plan((ny, nx), dtype, encoded.compression, fields)
            self.files = self._make_files(plan)
        else:
            plan = self.files.plan
            self._check(encoded, plan.image.shape, np.dtype(plan.image.dtype))
        same = _COMPRESSION_OF_FILE[encoded.compression] == plan.image.compression
        if not same and plan.image.compression not in ("bslz4", "none"):
            raise FrameSourceError(f"image packed as {encoded.compression} in a series of {plan.image.compression}")
        return self.files

    @staticmethod
    def _check(encoded: EncodedArray, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        if encoded.shape != shape or encoded.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise FrameSourceError(f"image of {encoded.dtype} {encoded.shape} in a series of {dtype} {shape}")

    def _plan(
        self, shape: tuple[int, int], dtype: np.dtype[Any], compression: str, first: Mapping[str, Any]
    ) -> DataFilePlan:
        """Return what the files are made for; `first` are the fields of the first image."""
        header = self.header
        fill = default_error_value(dtype) if header.error_value is None else header.error_value
        if dtype.kind in "ui" and not np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max:
            self.problem = f"error_value {fill} does not fit into {dtype}"
            fill = default_error_value(dtype)
        kept = _COMPRESSION_OF_FILE[compression] if compression != "none" else self.options.compression
        per_file = header.images_per_file
        if per_file == 0:  # all in one file
            per_file = header.number_of_images
        per_file = min(per_file or self.options.images_per_file, 10_000_000)
        master = self.options.master
        plan = DataFilePlan(
            OPEN_ENDED if master == "integrated" else per_file,
            ImagePlan(self.options.name, shape, dtype.str, kept, fill),
            master=master,
        )
        self._results = results = ImageResults(self.options.name, header.announced, first)
        exposure = None if results.exposure_known else scalar(header.facts.get("count_time"))
        return replace(plan, results=results.plans, exposure_time=exposure)

    def _take_results(self, files: SeriesFiles, index: int, time: float, fields: Mapping[str, Any]) -> None:
        results = self._results
        if results is None:
            return
        for source, vector in results.vectors(fields):
            files.write_results(source, index, time, vector)
        self.counts.results_left_out, self.counts.spots_cut = results.left_out, results.spots_cut

    def _make_files(self, plan: DataFilePlan) -> SeriesFiles:
        header = self.header
        mask = header.mask if header.mask is not None and header.mask.shape == plan.image.shape else None
        content = MasterContent(
            header.file_prefix,
            plan.image,
            meta=header.facts,
            frames_requested=header.number_of_images,
            started=self._armed(),
            mask=mask,
            flatfield=header.flatfield,
            calibration=self._calibration,
            plan=plan,
        )
        return SeriesFiles(
            self.folder,
            self.prefix,
            plan,
            content,
            overwrite=self.options.overwrite,
            alone=self.alone,
            makes_master=self._makes_master(),
            metadata=self._metadata,
            on_closed=self._on_closed,
        )

    def _armed(self) -> float:
        """Return the detector's own start where it says one, else when the message came."""
        return self._armed_at or self.started

    def _makes_master(self) -> bool:
        """Whether the master is made here: by who is told so, who is alone, or who has the calibration."""
        if self.header.makes_master is not None:
            return self.header.makes_master
        return self.alone or bool(self._calibration)

    def _store(self, files: SeriesFiles, index: int, encoded: EncodedArray, header: FrameHeader) -> None:
        image = files.plan.image
        as_it_came = (
            _COMPRESSION_OF_FILE[encoded.compression] == image.compression
            and not encoded.column_major
            and encoded.dtype.str == image.dtype
        )
        if as_it_came:
            self._write(files, index, encoded.payload, header)
            return
        pixels = np.ascontiguousarray(encoded.array(), np.dtype(image.dtype))
        if image.compression == "none":
            self._write(files, index, pixels.reshape(-1).view(np.uint8).data, header)
        elif encoded.compression != "none":
            self._write(files, index, compress_lz4(pixels), header)
        else:
            self._pack(files, _Pixels(header, pixels))

    def _write(self, files: SeriesFiles, index: int, payload: Buffer, header: FrameHeader) -> None:
        if files.write(index, payload, header):
            self.counts.written += 1
        else:
            self.counts.late += 1

    def _pack(self, files: SeriesFiles, frame: _Pixels) -> None:
        if self._packer is None:
            image = files.plan.image
            self._packer = Packer(image.shape, image.dtype, compression=image.compression, threads=self.options.threads)
        while (packed := self._packer.pack(frame, 0.0)) is None:
            self._write_oldest()
        self._waiting.append(packed)
        self.drain()


def _frame_header(message: ImageMessage, now: float, armed: float | None) -> FrameHeader:
    """Return an image's numbers; times without a date are of no use, so the arrival stands in for them."""
    fields, index = message.fields, message.image_id
    base = _timestamp(fields["series_date"]) if "series_date" in fields else None
    base = base or armed
    begin = image_time(fields, "start_time") if base is not None else None
    if base is None or begin is None:
        first = last = now
    else:
        end = _end_time(message)
        first = base + begin
        last = base + end if end is not None else first
    expected, received = _packets(fields.get("packets_expected")), _packets(fields.get("packets_received"))
    return FrameHeader(index, first, last, index, expected, received, _NAN, _NAN)


def _end_time(message: ImageMessage) -> float | None:
    stop = image_time(message.fields, "stop_time")
    return stop if stop is not None else image_time(message.fields, "end_time")


def _packets(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**32 else 0


def _timestamp(value: Any) -> float | None:
    """Return UNIX time [s] of a date or its ISO text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value.timestamp() if isinstance(value, datetime) else None
