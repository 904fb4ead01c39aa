"""The ``detector:`` section of a site file: what the detector is, how it is read out, where its modules lie.

`DetectorOptions` is the one place that knows how many UDP streams and packets a frame has, what an image's shape and
dtype are, and which packet numbers a partial readout sends. It is pure data: receiver, simulator, integrator and
writer all read it, and none of them repeats a figure of it.

A *stream* is what arrives at one UDP port. JUNGFRAU: one a module, or two with two interfaces (top half first).
EIGER: four a module, each a quarter of 256 rows × 512 pixels. GigaFRoST: eight, two links of each
quadrant (`gigafrost`).

Sources: slsDetectorPackage ``docs/src/udpheader.rst`` and its virtual JUNGFRAU server for partial readout;
positions as the standard DAQ writes them (``[x0, y0, x1, y1]``, both ends inside).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sisockdaq.detector import gigafrost
from sisockdaq.errors import ConfigurationError, GeometryError

__all__ = ["HEADER_BYTES", "DetectorOptions", "Geometry", "Position", "eiger_position"]

Position = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)``: the first data row begins at column x0 of row y0; both ends belong to the module."""

HEADER_BYTES = 48
"""Length of the slsDetector standard header, version 2."""

JUNGFRAU_COLUMNS, JUNGFRAU_ROWS, JUNGFRAU_PACKET_ROWS = 1024, 512, 4
EIGER_COLUMNS, EIGER_ROWS, EIGER_CHIP, EIGER_GAP = 512, 256, 256, 2
_EIGER_STREAMS = 4
"""Streams (quarters) of one EIGER module: two half modules with two ports each."""

_EIGER_PITCH = (550, 1038)
"""Rows and columns from one module of an EIGER 9M to the next: 514 × 1030 pixels and the gap between modules."""

_JUNGFRAU_PAYLOAD = 8192
_EIGER_PAYLOAD = {10: 4096, 1: 1024}
"""Pixel bytes of an EIGER packet by the speed of its link [Gb/s]."""


_PIXEL_TYPES = {4: "u1", 8: "u1", 16: "<u2", 32: "<u4"}
"""Type of an image's pixels by its bit depth."""

LARGEST_IMAGE = 2**28
"""Pixels of an image at most: sixteen times those of an EIGER 16M, and less than what a typing error asks for."""

_ELECTRONVOLT_METRE = 1.2398419843320026e-06
"""Energy times wavelength of a photon, hc/e [eV m] (CODATA 2018, exact)."""


class Geometry(BaseModel):
    """Where the detector stands, in pyFAI's terms (lengths in m, angles in rad)."""

    model_config = ConfigDict(extra="forbid")

    distance: PositiveFloat = Field(description="Sample to detector plane, along its normal [m].")
    poni1: float = Field(description="Point of normal incidence, along rows (y) [m].")
    poni2: float = Field(description="Point of normal incidence, along columns (x) [m].")
    rot1: float = Field(0.0, description="Rotation around the vertical axis [rad].")
    rot2: float = Field(0.0, description="Rotation around the horizontal axis [rad].")
    rot3: float = Field(0.0, description="Rotation around the beam [rad].")
    wavelength: PositiveFloat = Field(description="Wavelength of the beam [m].")

    @classmethod
    def of_poni(cls, text: str) -> Geometry:
        """Read the text of a PONI file; later lines win, as in pyFAI.

        Raises
        ------
        GeometryError
            When a parameter is missing or no number.
        """
        found: dict[str, Any] = {}
        for line in text.splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip().lower() in cls.model_fields:
                found[key.strip().lower()] = value.strip()
        try:
            return cls(**found)
        except ValidationError as error:
            faults = ", ".join(f"{item['loc'][0]} ({item['msg']})" for item in error.errors())
            raise GeometryError(f"the PONI file is not whole: {faults}", remedy="write it again with pyFAI") from None

    def to_meta(self, pixel_size: float) -> dict[str, Any]:
        """Return distance, beam centre, wavelength and energy as Stream V2 names them; the beam centre in pixels.

        The direct beam meets a tilted detector where pyFAI's ``getFit2D`` says.
        """
        x = self.poni2 - self.distance * math.tan(self.rot1)
        y = self.poni1 + self.distance * math.tan(self.rot2) / math.cos(self.rot1)
        return {
            "detector_distance": self.distance,
            "detector_translation": [0.0, 0.0, self.distance],
            "beam_center_x": x / pixel_size,
            "beam_center_y": y / pixel_size,
            "incident_wavelength": self.wavelength * 1e10,
            "incident_energy": _ELECTRONVOLT_METRE / self.wavelength,
        }


class DetectorOptions(BaseModel):
    """A detector as the site file describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["jungfrau", "eiger", "gigafrost"] = Field(description="Kind of detector; decides the packet format.")
    modules: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Number of modules (JUNGFRAU: 512 × 1024 pixels; EIGER: 514 × 1030, four UDP streams). "
        "Default: as many as module_positions has, else 1.",
    )
    interfaces: Literal[1, 2] = Field(1, description="UDP interfaces of a JUNGFRAU module: 1, or 2 (one a half).")
    bit_depth: int = Field(
        16,
        description="Bits a pixel of the image: 16 for JUNGFRAU and GigaFRoST (which sends 12 of them); 4, 8, 16 or 32 "
        "for EIGER.",
    )
    link_speed: Literal[1, 10] = Field(
        10, description="Link of an EIGER [Gb/s]: packets of 4096 bytes of pixels at 10, of 1024 at 1."
    )
    readout_rows: int = Field(
        512,
        ge=8,
        le=512,
        multiple_of=8,
        description="Rows that a JUNGFRAU module reads out, around its centre; the image has only these rows.",
    )
    image_width: int | None = Field(
        None,
        ge=24,
        le=gigafrost.WIDEST,
        multiple_of=24,
        description="Columns of a GigaFRoST's image. Default: 2016, the whole sensor.",
    )
    image_height: int | None = Field(
        None,
        ge=4,
        le=gigafrost.WIDEST,
        multiple_of=4,
        description="Rows of a GigaFRoST's image. Default: 2016, the whole sensor.",
    )
    packet_rows: int | None = Field(
        None,
        ge=1,
        description="Rows in a full packet of a GigaFRoST. Default: as many as the camera normally sends; where it "
        "sends others, the receiver says how many.",
    )
    module_positions: dict[int, Position] | None = Field(
        None,
        description="Place in the image of each JUNGFRAU module, or each EIGER stream: {index: [x0, y0, x1, y1]}, ends "
        "inside. The first data row goes to y0; y1 < y0 means rows run upward, x1 < x0 that columns run to the left. "
        "Default: modules stacked downward.",
    )
    image_size: tuple[int, int] | None = Field(
        None,
        description="Rows and columns of the image, where it is to be larger than what the modules reach; the rest is "
        "gap. Default: as far as they reach.",
    )
    module_ids: list[int] | None = Field(
        None,
        description="modId that each stream's packets must carry; others are counted as invalid. Default: the one that "
        "a stream was first heard with.",
    )
    gap_value: int = Field(0, ge=0, description="Value of the pixels between chips and modules.")
    fill_value: int | None = Field(
        None, ge=0, description="Value of pixels whose packet was lost. Default: the largest of the image's type."
    )
    pixel_size: PositiveFloat = Field(75e-6, description="Edge of a pixel [m].")
    sensor_material: str = Field("Si", description="Material of the sensor.")
    sensor_thickness: PositiveFloat = Field(320e-6, description="Thickness of the sensor [m].")
    saturation_value: int | None = Field(None, ge=1, description="Largest value that is still a count, where known.")
    name: str = Field("", description='Name or serial number, for files. Default: the model, for example "JUNGFRAU".')
    geometry: str | Geometry | None = Field(
        None,
        description="PONI file, or any other that `sisockdaq calibration import` reads, relative to the site file; or "
        "the parameters themselves.",
    )
    mask: str | None = Field(
        None, description="Mask (edf, npy, tif, h5 or Fit2D), relative to the site file: non-zero pixels are left out."
    )

    @classmethod
    def checked(cls, **options: Any) -> DetectorOptions:
        """Build from keywords; raise `ConfigurationError` with every mistake as one line."""
        try:
            return cls(**options)
        except ValidationError as error:
            problems = [
                f"detector.{'.'.join(str(key) for key in item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            ]
            raise ConfigurationError("; ".join(problems), problems=problems) from None

    @field_validator("bit_depth")
    @classmethod
    def _known_depth(cls, value: int, info: ValidationInfo) -> int:
        if value == 12 and info.data.get("model") != "gigafrost":
            raise ValueError("12-bit readout is not supported; set the detector's dynamic range to 16")
        if value not in (4, 8, 16, 32) and value != 12:
            raise ValueError(f"{value} is not a bit depth (one of 4, 8, 16, 32)")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> DetectorOptions:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        """Find everything that does not fit together."""
        if self.model == "jungfrau" and self.bit_depth != 16:
            yield f"a JUNGFRAU has bit_depth 16, not {self.bit_depth}"
        if self.model != "jungfrau" and (self.interfaces != 1 or self.readout_rows != JUNGFRAU_ROWS):
            whose = "an EIGER" if self.model == "eiger" else "a GigaFRoST"
            yield f"interfaces and readout_rows are for JUNGFRAU; {whose} has neither"
        unlike = list(self._gigafrost_problems())
        yield from unlike
        if self.bit_depth in _PIXEL_TYPES:
            limit = np.iinfo(self.dtype).max
            for name in ("gap_value", "fill_value"):
                if (getattr(self, name) or 0) > limit:
                    yield f"{name} {getattr(self, name)} does not fit into {self.dtype.name} (0 to {limit})"
        misplaced = list(self._position_problems())
        yield from misplaced
        if misplaced or unlike:
            return  # what follows is told from the positions
        if self.module_ids is not None and len(self.module_ids) != self.streams:
            yield f"module_ids has {len(self.module_ids)} entries for {self.streams} streams"
        yield from self._size_problems()

    def _size_problems(self) -> Iterator[str]:
        if self.image_size is None:
            return
        if self.model == "gigafrost":
            yield "image_size is for detectors of modules; a GigaFRoST has image_width and image_height"
        elif any(size < least for size, least in zip(self.image_size, self.extent, strict=True)):
            yield f"image_size {list(self.image_size)} is smaller than {list(self.extent)}, which the modules reach"
        elif math.prod(self.image_size) > LARGEST_IMAGE:
            yield f"image_size {list(self.image_size)} has more than {LARGEST_IMAGE} pixels"

    def _gigafrost_problems(self) -> Iterator[str]:
        if self.model != "gigafrost":
            if (self.image_width, self.image_height, self.packet_rows) != (None, None, None):
                yield "image_width, image_height and packet_rows are for GigaFRoST"
            return
        if self.bit_depth != 16:
            yield f"a GigaFRoST's image has bit_depth 16 (12 of them sent), not {self.bit_depth}"
        if (self.modules, self.module_positions, self.module_ids) != (None, None, None):
            yield "a GigaFRoST has no modules, module_positions or module_ids: its quadrants are fixed"
        height = self.extent[0]
        if self.packet_rows is not None and self.packet_rows > height // 4:
            yield f"packet_rows {self.packet_rows}: a stream has only {height // 4} rows"

    def _position_problems(self) -> Iterator[str]:
        if self.module_positions is None or self.model == "gigafrost":
            return
        given, what = self.module_positions, "module" if self.model == "jungfrau" else "stream"
        count = len(given)
        if sorted(given) != list(range(count)) or not given:
            yield f"module_positions must have the keys 0 to {what}s − 1, each once"
            return
        a_module = 1 if self.model == "jungfrau" else _EIGER_STREAMS
        if self.modules is not None and count != self.modules * a_module:
            yield f"module_positions has {count} entries; {self.modules} modules have {self.modules * a_module}"
        rows, columns = self.tile
        for index, (x0, y0, x1, y1) in sorted(given.items()):
            if min(x0, y0, x1, y1) < 0:
                yield f"module_positions.{index}: {[x0, y0, x1, y1]} has a negative end"
            if (abs(y1 - y0) + 1, abs(x1 - x0) + 1) != (rows, columns):
                spans = f"{abs(y1 - y0) + 1} × {abs(x1 - x0) + 1}"
                yield (
                    f"module_positions.{index}: {[x0, y0, x1, y1]} spans {spans} pixels; "
                    f"a {what} has {rows} × {columns} (ends inside)"
                )
        for (a, first), (b, second) in combinations(sorted(given.items()), 2):
            if _overlap(first, second):
                yield f"module_positions: {what}s {a} and {b} overlap"

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of the image that one entry of `positions` covers."""
        if self.model == "jungfrau":
            return self.readout_rows, JUNGFRAU_COLUMNS
        if self.model == "gigafrost":
            return self._sensor[0] // 2, self._sensor[1] // 2
        return EIGER_ROWS, EIGER_COLUMNS + EIGER_GAP

    @property
    def positions(self) -> list[Position]:
        """Place of each JUNGFRAU module, EIGER stream or GigaFRoST quadrant."""
        if self.model == "gigafrost":
            return gigafrost.positions(self._sensor[1], self._sensor[0])
        if self.module_positions is not None:
            return [self.module_positions[index] for index in range(len(self.module_positions))]
        modules = self.modules or 1
        if self.model == "jungfrau":
            rows = self.readout_rows
            return [(0, m * rows, JUNGFRAU_COLUMNS - 1, (m + 1) * rows - 1) for m in range(modules)]
        return [eiger_position(row, column) for row in range(2 * modules) for column in range(2)]

    @property
    def module_count(self) -> int:
        """Number of modules; half an EIGER module counts as one. A GigaFRoST is one."""
        if self.model == "gigafrost":
            return 1
        a_module = 1 if self.model == "jungfrau" else _EIGER_STREAMS
        return -(-len(self.positions) // a_module)

    @property
    def _sensor(self) -> tuple[int, int]:
        """Rows and columns of a GigaFRoST's image."""
        return self.image_height or gigafrost.WIDEST, self.image_width or gigafrost.WIDEST

    @property
    def packet_bits(self) -> int:
        """Bits of a pixel in a packet; an image may spread them to more."""
        return 12 if self.model == "gigafrost" else self.bit_depth

    @property
    def stream_rows(self) -> int:
        """Rows of the image in one stream of a GigaFRoST."""
        return self._sensor[0] // 4

    @property
    def rows_per_packet(self) -> int:
        """Rows in a full packet of a GigaFRoST."""
        return self.packet_rows or gigafrost.packet_rows(self._sensor[1], self._sensor[0])

    @property
    def header_bytes(self) -> int:
        """Bytes of a packet before its pixels."""
        return gigafrost.HEADER_BYTES if self.model == "gigafrost" else HEADER_BYTES

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.image_size or self.extent

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns that the modules reach."""
        places = self.positions
        return 1 + max(max(p[1], p[3]) for p in places), 1 + max(max(p[0], p[2]) for p in places)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the image's pixels; 4-bit pixels are spread to one byte each."""
        return np.dtype(_PIXEL_TYPES[self.bit_depth])

    @property
    def fill(self) -> int:
        """Value of pixels whose packet was lost."""
        return int(np.iinfo(self.dtype).max) if self.fill_value is None else self.fill_value

    @property
    def streams(self) -> int:
        """Number of UDP ports that the detector sends to."""
        if self.model == "gigafrost":
            return gigafrost.STREAMS
        return len(self.positions) * (self.interfaces if self.model == "jungfrau" else 1)

    @property
    def payload_bytes(self) -> int:
        """Bytes of pixels in one full packet."""
        if self.model == "gigafrost":
            return self.rows_per_packet * gigafrost.row_bytes(self._sensor[1])
        return _JUNGFRAU_PAYLOAD if self.model == "jungfrau" else _EIGER_PAYLOAD[self.link_speed]

    @property
    def datagram_bytes(self) -> int:
        """Bytes of one full packet, header included (and without a GigaFRoST's padding)."""
        return self.header_bytes + self.payload_bytes

    @property
    def packets_per_stream(self) -> int:
        """Packets of one frame in one stream."""
        if self.model == "gigafrost":
            return -(-self.stream_rows // self.rows_per_packet)
        if self.model == "jungfrau":
            return self.readout_rows // JUNGFRAU_PACKET_ROWS // self.interfaces
        return EIGER_ROWS * EIGER_COLUMNS * self.bit_depth // 8 // self.payload_bytes

    @property
    def packets_per_frame(self) -> int:
        """Packets of one frame in all streams."""
        return self.streams * self.packets_per_stream

    @property
    def detector_type(self) -> int:
        """``detType`` of the packet header; a GigaFRoST's first byte."""
        return {"eiger": 1, "jungfrau": 3, "gigafrost": gigafrost.PROTOCOL}[self.model]

    def first_packet(self, stream: int) -> int:
        """Lowest packet number that the stream sends: a partial readout keeps the numbers of its rows."""
        if self.model != "jungfrau":
            return 0
        half = JUNGFRAU_ROWS // JUNGFRAU_PACKET_ROWS // 2
        if self.interfaces == 1:
            return half - self.packets_per_stream // 2
        return half - self.packets_per_stream if stream % 2 == 0 else 0

    @property
    def title(self) -> str:
        """Short text for people, for example ``JUNGFRAU 1024×1024, 2 modules``."""
        rows, columns = self.shape
        if self.model == "gigafrost":
            return f"{self._called} {columns}×{rows}"
        plural = "" if self.module_count == 1 else "s"
        return f"{self._called} {columns}×{rows}, {self.module_count} module{plural}"

    @property
    def _called(self) -> str:
        return self.name or ("GigaFRoST" if self.model == "gigafrost" else self.model.upper())

    def blank(self) -> npt.NDArray[Any]:
        """Return a new image that is all gap."""
        return np.full(self.shape, self.gap_value, self.dtype)

    def to_meta(self, geometry: Geometry | None = None) -> dict[str, Any]:
        """Return what consumers of the frames learn of the detector, JSON-able.

        Keys that DECTRIS Stream V2 has in its start message have its names and units.

        Parameters
        ----------
        geometry : Geometry, optional
            Default: the one given inline, if any.
        """
        known = geometry or (self.geometry if isinstance(self.geometry, Geometry) else None)
        meta = {
            "detector_description": self._called,
            "model": self.model,
            "title": self.title,
            "modules": self.module_count,
            "bit_depth_readout": self.packet_bits,
            "pixel_size_x": self.pixel_size,
            "pixel_size_y": self.pixel_size,
            "sensor_material": self.sensor_material,
            "sensor_thickness": self.sensor_thickness,
            "saturation_value": self.saturation_value,
            "gap_value": self.gap_value,
            "fill_value": self.fill,
            "packets_per_frame": self.packets_per_frame,
        }
        meta.update(known.to_meta(self.pixel_size) if known else {})
        return {key: value for key, value in meta.items() if value is not None}


def eiger_position(row: int, column: int) -> Position:
    """Place of an EIGER stream in a detector of modules in the pitch of an EIGER 9M.

    Parameters
    ----------
    row, column : int
        As the packets' header has them: two rows and two columns of quarters a module.

    Returns
    -------
    tuple of int
        Top quarters (even rows) are mirrored: their first data row lies lowest.
    """
    x0 = column // 2 * _EIGER_PITCH[1] + column % 2 * (EIGER_COLUMNS + EIGER_GAP + 2)
    top = row // 2 * _EIGER_PITCH[0]
    x1 = x0 + EIGER_COLUMNS + EIGER_GAP - 1
    if row % 2 == 0:
        return x0, top + EIGER_ROWS - 1, x1, top
    first = top + EIGER_ROWS + 2
    return x0, first, x1, first + EIGER_ROWS - 1


def _overlap(first: Position, second: Position) -> bool:
    return all(low <= high for low, high in _common(first, second))


def _common(first: Position, second: Position) -> Iterator[tuple[int, int]]:
    for axis in (0, 1):
        a, b = sorted((first[axis], first[axis + 2])), sorted((second[axis], second[axis + 2]))
        yield max(a[0], b[0]), min(a[1], b[1])
