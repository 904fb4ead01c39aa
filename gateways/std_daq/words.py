"""From the writer's and the receiver's words to std-daq's objects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "Throughput",
    "acquisition_of",
    "detector_counters",
    "identity",
    "is_over",
    "ledger_of",
    "progress_of",
    "unknown",
    "writer_of",
]


def acquisition_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return std-daq's acquisition from the writer's record of it; always whole: what is not known is null."""
    info, stats = entry.get("info") or {}, entry.get("stats") or {}
    state = entry.get("state")
    return {
        "info": {key: info.get(key) for key in ("n_images", "output_file", "run_id")},
        "message": entry.get("message"),
        "state": str(state) if state else None,
        "stats": {key: stats.get(key) for key in ("n_write_completed", "n_write_requested", "start_time", "stop_time")},
    }


def writer_of(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return std-daq's status from one of the writer."""
    state = str(status.get("state"))
    acquisition = acquisition_of(status.get("record") or {})
    return {"acquisition": acquisition, "state": state if state in ("READY", "WRITING") else "UNKNOWN"}


def progress_of(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far the writer is: what std-daq's own objects do not say. What is not known is null."""
    wanted, written = status.get("frames"), status.get("frames_written")
    running = status.get("state") == "WRITING"
    return {
        "share": min(1.0, (written or 0) / wanted) if wanted else None,
        "images_per_second": float(status.get("rate") or 0.0),
        "bytes_per_second": float(status.get("data_rate") or 0.0),
        "time_left": status.get("time_left") if running else None,
    }


def ledger_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an acquisition's ledger (null until it has ended) with what tells whose it is, from the writer's words."""
    record = entry.get("record") or entry
    return {
        "acquisition": entry.get("acquisition"),
        "run_id": (record.get("info") or {}).get("run_id"),
        "ledger": entry.get("ledger"),
    }


def unknown(reason: str) -> dict[str, Any]:
    """Return the status while the writer cannot be asked."""
    nothing = acquisition_of({})
    return {"acquisition": {**nothing, "message": reason}, "state": "UNKNOWN"}


def identity(acquisition: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what tells an acquisition (std-daq's object) from all others."""
    return acquisition["info"]["run_id"], acquisition["info"]["output_file"]


def is_over(writer: Mapping[str, Any]) -> bool:
    """Whether an acquisition of this status (std-daq's object) has ended, files closed."""
    return bool(writer["state"] == "READY")


class Throughput:
    """Rates from counters that only grow; a counter that falls has begun anew."""

    def __init__(self) -> None:
        self._last: tuple[float, float, float] | None = None
        self.rates = {"bytes_per_second": 0.0, "images_per_second": 0.0}

    def see(self, now: float, size: float, images: float) -> dict[str, float]:
        """Take the counters at a time [s]; return the rates since the time before."""
        before, self._last = self._last, (now, size, images)
        if before is None or now <= before[0]:
            return self.lose(keep=self._last)
        elapsed = now - before[0]
        self.rates = {
            "bytes_per_second": (size - before[1] if size >= before[1] else size) / elapsed,
            "images_per_second": (images - before[2] if images >= before[2] else images) / elapsed,
        }
        return self.rates

    def lose(self, keep: tuple[float, float, float] | None = None) -> dict[str, float]:
        """Show nothing: nobody could be asked."""
        self._last, self.rates = keep, {"bytes_per_second": 0.0, "images_per_second": 0.0}
        return self.rates


def detector_counters(status: Mapping[str, Any]) -> tuple[float, float]:
    """Return (bytes, images) that a receiver has had, from its status; 0 where it does not say."""
    counters = status.get("counters") or {}
    frames = counters.get("frames", 0)
    if isinstance(frames, Mapping):
        # A partial frame is counted twice: as partial, and as what became of it.
        images = _sum(frames.values()) - float(frames.get("partial") or 0)
    else:
        images = float(frames or 0)
    return float(counters.get("bytes") or 0), images


def _sum(values: Iterable[Any]) -> float:
    return float(sum(value for value in values if isinstance(value, int | float)))
