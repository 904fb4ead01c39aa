"""What std-daq's clients send and get, as models: they check requests, and the OpenAPI document is made from them.

Names, states and messages are those of std-daq. Every reply is an *envelope*: ``status``, ``message`` and one key of
its own, which is left out of errors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, field_validator

__all__ = [
    "Acquisition",
    "ConfigChanges",
    "ConfigReply",
    "DaqConfig",
    "Deployment",
    "DeploymentReply",
    "Envelope",
    "FileReply",
    "ImageReply",
    "LedgerReply",
    "LogsReply",
    "SimulationReply",
    "SimulationRequest",
    "Stats",
    "StatsReply",
    "WriteRequest",
    "WriterReply",
    "WriterStatus",
    "reasons_of",
]

MOST_IMAGES = 10**9
"""More images in one acquisition are a mistake."""


def _no_bool(value: Any) -> Any:
    """Refuse true and false where a number is wanted; Python would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


Count = Annotated[int, BeforeValidator(_no_bool)]
RunId = Annotated[
    Annotated[int, Field(strict=True, ge=0, lt=2**63)]
    | Annotated[str, StringConstraints(min_length=1, max_length=200)],
    BeforeValidator(_no_bool),
]


class WriteRequest(BaseModel):
    """A wish for an acquisition."""

    model_config = ConfigDict(extra="allow")

    output_file: str = Field(
        min_length=2,
        max_length=4000,
        description="Absolute path of the file; its folder exists, and writer_user_id may write there.",
        examples=["/data/e12345/run_0001.h5"],
    )
    n_images: Count = Field(ge=1, le=MOST_IMAGES, description="Number of images.", examples=[100])
    run_id: RunId | None = Field(
        None, description="Any number or text that is used once. Default: the time of the request [ns]."
    )

    raw: Literal["beside", "instead"] | None = Field(
        None, description="Have the detector's packets recorded beside or instead of images, to be replayed."
    )

    @field_validator("output_file")
    @classmethod
    def _plain_path(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f'"{path}" is not absolute: it must begin with /')
        parts = path.split("/")
        if not parts[-1] or ".." in parts or "." in parts:
            raise ValueError(f'"{path}" must name a file, without . or .. as folders')
        if not path.isprintable():
            raise ValueError("the path has characters that cannot be printed")
        return path


class SimulationRequest(BaseModel):
    """What the simulator is to send."""

    model_config = ConfigDict(extra="ignore")

    rate: float = Field(10.0, gt=0, le=100_000, description="Images a second.")
    n_images: Count = Field(0, ge=0, le=MOST_IMAGES, description="Number of images; 0: until it is stopped.")


class Info(BaseModel):
    """The request that an acquisition comes from."""

    n_images: int | None = Field(description="Number of images; null when it ends with a stop.")
    output_file: str | None = Field(description="The file; null when there was no acquisition yet.")
    run_id: int | str | None


class AcquisitionStats(BaseModel):
    """How far an acquisition is."""

    n_write_completed: int | None = Field(description="Images in the file.")
    n_write_requested: int | None = Field(description="Images given to the writer.")
    start_time: float | None = Field(description="UNIX time [s].")
    stop_time: float | None = Field(description="UNIX time [s]; null while it runs.")


AcquisitionState = Literal[
    "FINISHED", "FAILED", "WRITING", "WAITING_IMAGES", "ACQUIRING_IMAGES", "FLUSHING_IMAGES"
]  # fmt: skip


class Acquisition(BaseModel):
    """The acquisition that runs, or was the last; all null before the first."""

    info: Info
    message: str | None = Field(description="Completed., Interrupted. or ERROR: with the reason, once it is over.")
    state: AcquisitionState | None
    stats: AcquisitionStats


class WriterStatus(BaseModel):
    """The state of the writer and of its acquisition."""

    acquisition: Acquisition
    state: Literal["READY", "WRITING", "UNKNOWN"] = Field(
        description="READY takes a start. UNKNOWN: the writer cannot be asked now; the message says why."
    )


Position = Annotated[list[Count], Field(min_length=4, max_length=4)]


class ConfigChanges(BaseModel):
    """Keys of the configuration that are to change; those left out keep their values."""

    model_config = ConfigDict(extra="allow")

    bit_depth: Count | None = Field(None, ge=1, le=64, description="Bits a pixel.")
    detector_name: str | None = Field(None, max_length=200, description="Name of the detector.")
    detector_type: str | None = Field(None, max_length=50, description="eiger, jungfrau, gigafrost or bsread.")
    image_pixel_height: Count | None = Field(None, ge=1, le=2**20, description="Rows of the image, gaps included.")
    image_pixel_width: Count | None = Field(None, ge=1, le=2**20, description="Columns of the image, gaps included.")
    n_modules: Count | None = Field(None, ge=1, le=2**16, description="Modules of the detector.")
    start_udp_port: Count | None = Field(None, ge=1, le=65535, description="First UDP port; the others follow it.")
    writer_user_id: Count | None = Field(
        None, ge=-1, lt=2**31, description="User that files belong to; below 1: the one that the service runs as."
    )
    module_positions: dict[str, Position] | None = Field(
        None,
        description="[x0, y0, x1, y1] of each module, ends inside: its first row of data goes to y0, so that "
        "y1 < y0 means rows written upward.",
    )


class DaqConfig(ConfigChanges):
    """The configuration that is deployed."""


class Rates(BaseModel):
    """What passed in the last second."""

    bytes_per_second: float
    images_per_second: float


class Stats(BaseModel):
    """Throughput, renewed once a second."""

    detector: Rates
    writer: Rates


class DeploymentStats(BaseModel):
    """When a deployment began and ended; UNIX times [s]."""

    start_time: float | None
    stop_time: float | None


class Deployment(BaseModel):
    """How far the newest configuration has come."""

    config_id: str | None = Field(description="Id of the configuration, also in the stream daq:config.")
    message: str
    servers: dict[str, str] = Field(description="What each node has said: Deploying, Done, or why not.")
    stats: DeploymentStats
    status: Literal["UNKNOWN", "RUNNING", "SUCCESS", "ERROR"]


class Simulation(BaseModel):
    """The simulated detector."""

    state: Literal["IDLE", "RUNNING", "UNAVAILABLE"]
    rate: float | None = Field(description="Images a second.")
    n_images: int | None = Field(description="Number of images; 0: until it is stopped.")
    message: str


class FileInfo(BaseModel):
    """What is in a recorded file."""

    n_files: int
    n_images: int
    image_pixel_width: int | None
    image_pixel_height: int | None
    dtype: str | None
    files: list[str]


class FileMetadata(BaseModel):
    """A recorded file, and the request that it comes from."""

    log_info: Info
    file_info: FileInfo


class RecordedImage(BaseModel):
    """One image of a recorded file, as numbers."""

    acquisition: str
    index: int
    frame: int | None = Field(description="The detector's frame number.")
    time: float
    shape: list[int]
    type: str
    data: list[list[float]] = Field(description="Pixels, row by row.")
    lost: list[list[float]] | None = Field(description="1 where packets were lost; null when none were.")


class Streams(BaseModel):
    """The Redis streams: off, up or away, and what became of the messages."""

    state: Literal["off", "up", "away"]
    message: str
    published: int
    dropped: int = Field(description="Messages that were given up because Redis was away too long.")
    waiting: int


class Envelope(BaseModel):
    """What every reply has."""

    status: Literal["ok", "error"]
    message: str = Field(description="For people; of an error, the reasons and what to do.")


class Progress(BaseModel):
    """How far the acquisition is; it counts what is in the file."""

    share: float | None = Field(description="0 to 1; null when it ends with a stop.")
    images_per_second: float
    bytes_per_second: float
    time_left: float | None = Field(description="Estimate [s]; null when nothing runs, or nothing comes.")


class LedgerOf(BaseModel):
    """What became of every packet and image of an acquisition."""

    acquisition: str | None = Field(description="Its name.")
    run_id: int | str | None
    ledger: dict[str, Any] | None = Field(description="Sums that balance; null until it has ended.")


class WriterReply(Envelope):
    """The writer's status."""

    writer: WriterStatus | None = None
    progress: Progress | None = None
    streams: Streams | None = None


class ConfigReply(Envelope):
    """The configuration."""

    config: DaqConfig | None = None
    config_id: str | None = None


class StatsReply(Envelope):
    """The throughput."""

    stats: Stats | None = None


class LogsReply(Envelope):
    """Acquisitions that are over, newest first, failed ones included."""

    logs: list[Acquisition] | None = None


class DeploymentReply(Envelope):
    """The deployment."""

    deployment: Deployment | None = None


class SimulationReply(Envelope):
    """The simulator."""

    simulation: Simulation | None = None


class LedgerReply(Envelope):
    """A ledger."""

    ledger: LedgerOf | None = None


class FileReply(Envelope):
    """A recorded file."""

    file_metadata: FileMetadata | None = None


class ImageReply(Envelope):
    """An image as numbers."""

    image: RecordedImage | None = None


def reasons_of(error: ValidationError) -> str:
    """Return every mistake of a request as one text for people."""
    found = []
    for one in error.errors():
        if one["loc"][:1] == ("run_id",):
            text = "run_id must be a number from 0 to 2⁶³ − 1 or a text of 1 to 200 characters"
        elif one["type"] == "missing":
            text = f"{one['loc'][-1]} is missing"
        else:
            place = ".".join(str(key) for key in one["loc"]) or "the body"
            text = f"{place}: {one['msg'].removeprefix('Value error, ')}"
        if text not in found:
            found.append(text)
    return "; ".join(found)
