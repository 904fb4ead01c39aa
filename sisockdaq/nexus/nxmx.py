"""What a master file says, as a tree of groups, datasets and links: pure, nothing here touches a file.

The tree follows NXmx (nexusformat/definitions) and the layout of DECTRIS' file writer where readers depend on it
(contract "Files"). Facts about the experiment come in under the names of Stream V2 start messages: ``count_time``,
``frame_time``, ``beam_center_x``, ``detector_distance``, ``incident_wavelength`` and so on, lengths in metres, the
wavelength in Å, energies in eV. What is not known is left out, never invented.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.nexus._nxmx_detector import detector, known
from sisockdaq.nexus._virtual import virtual_places
from sisockdaq.nexus.epochs import Epochs, epochs_group, has_epochs
from sisockdaq.nexus.layout import IMAGE_PATH, SERIES_PATH, DataFilePlan, ImagePlan, MasterLayout
from sisockdaq.nexus.tree import Dataset, ExternalLink, Group, Node, Piece, VirtualDataset

__all__ = ["MasterContent", "iso_time", "master_tree"]

_TIME_ROOM, _REASON_ROOM, _LEDGER_ROOM = 32, 512, 32 * 1024
"""Bytes that an integrated master keeps free for what is only known at the end."""

_GONIOMETER = "/entry/sample/transformations"
_MOST_ANGLES = 10_000_000

_AXES = ("omega", "kappa", "chi", "phi")
"""Rotations of a goniometer, from its base to the sample."""

_EV_ANGSTROM = 12398.419843320026
"""h·c [eV Å], CODATA 2018 (exact)."""


@dataclass(slots=True)
class MasterContent:
    """Everything that a master file is made from.

    Attributes
    ----------
    acquisition : str
    image : ImagePlan
    meta : mapping
        Facts about the experiment under Stream V2 names.
    files : sequence of (name, rows)
        The data files that exist, in order.
    frames_requested : int or None
    images_written : int
    started, ended : float
        UNIX times [s]; `ended` is None while the acquisition runs.
    end_reason : str
        "complete", "stopped" or "failed: …"; empty while it runs.
    mask : ndarray of uint32, optional
        Pixel mask in the bits of NXmx (0: good).
    ledger : mapping, optional
        Final counts (`sisockdaq.frames.ledger`).
    series : sequence of str
        Names of the sources whose series are in the data files.
    layout : MasterLayout
        How the master shows the images.
    flatfield : ndarray of float32, optional
        Factors of the pixels.
    calibration : mapping of name → ndarray
        What else the detector says of its pixels, such as pedestals.
    plan : DataFilePlan, optional
        What is in the data files beside the images.
    epochs : mapping of source → list of mapping
        What the epochs of results mean (`sisockdaq.nexus.epochs`).
    """

    acquisition: str
    image: ImagePlan
    meta: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[tuple[str, int]] = ()
    frames_requested: int | None = None
    images_written: int = 0
    started: float = 0.0
    ended: float | None = None
    end_reason: str = ""
    mask: npt.NDArray[np.uint32] | None = None
    ledger: Mapping[str, Any] | None = None
    series: Sequence[str] = ()
    layout: MasterLayout = "legacy"
    flatfield: npt.NDArray[Any] | None = None
    calibration: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    plan: DataFilePlan | None = None
    epochs: Epochs = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Images that there are; those that were asked for while the acquisition runs."""
        if self.ended is None and self.frames_requested is not None:
            return self.frames_requested
        return sum(rows for _, rows in self.files)


def iso_time(seconds: float) -> str:
    """Return a UNIX time in ISO 8601, UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def master_tree(content: MasterContent) -> Group:
    """Return the root of a master file."""
    entry = Group("NXentry", attributes={"default": "data"})
    entry.items = {
        "definition": Dataset("NXmx"),
        "title": Dataset(content.acquisition),
        "start_time": Dataset(iso_time(content.started)),
        **_end_times(content),
        "source": _source(content),
        "sample": _sample(content),
        "instrument": _instrument(content),
        "data": _data(content),
        "series": _series(content),
        "acquisition": _acquisition(content),
    }
    if content.layout == "vds" and content.plan is not None:
        virtual_places(entry, content.plan, content.files)
    integrated = content.layout == "integrated"
    if content.epochs or (integrated and content.plan is not None and has_epochs(content.plan.results)):
        entry.items["epochs"] = epochs_group(content.epochs, fixed=integrated)
    if integrated:
        entry.items["ledger"] = Group("NXcollection", {"json": _ledger_text(content.ledger)})
    elif content.ledger is not None:
        entry.items["ledger"] = _ledger(content.ledger)
    return Group("NXroot", {"entry": entry}, {"default": "entry", "creator": _software()})


def _software() -> str:
    try:
        return f"sisockdaq {version('sisockdaq')}"
    except PackageNotFoundError:
        return "sisockdaq"


def _end_times(content: MasterContent) -> dict[str, Node]:
    """When it ended, and when it will have ended as far as one can tell.

    An integrated master has the places for both from the beginning, with an empty text while nothing is known.
    """
    end = estimate = ""
    frame_time = content.meta.get("frame_time")
    if content.ended is not None:
        end = estimate = iso_time(content.ended)
    elif content.frames_requested is not None and frame_time:
        estimate = iso_time(content.started + content.frames_requested * float(frame_time))
    texts = {"end_time": end, "end_time_estimated": estimate}
    if content.layout == "integrated":
        return {name: Dataset(text, room=_TIME_ROOM) for name, text in texts.items()}
    return {name: Dataset(text) for name, text in texts.items() if text}


def _source(content: MasterContent) -> Group:
    names = {"source_name": ("name", None), "source_type": ("type", None), "source_current": ("current", "A")}
    return Group("NXsource", known(content.meta, names))


def _sample(content: MasterContent) -> Group:
    sample = Group("NXsample", known(content.meta, {"sample_name": ("name", None)}))
    sample.items.setdefault("name", Dataset(content.acquisition))
    sample.items.update(known(content.meta, {"sample_temperature": ("temperature", "K")}))
    axes = _goniometer(content)
    depends_on = "."
    if axes:
        sample.items["transformations"] = Group("NXtransformations", {**axes})
        depends_on = f"{_GONIOMETER}/{[name for name in axes if name in _AXES][-1]}"
    sample.items["depends_on"] = Dataset(depends_on)
    cell = content.meta.get("unit_cell")
    if isinstance(cell, Mapping):
        values = np.array([float(cell[key]) for key in ("a", "b", "c", "alpha", "beta", "gamma")])
        sample.items["unit_cell"] = Dataset(values)
    return sample


def _goniometer(content: MasterContent) -> dict[str, Node]:
    """Return the axes that turn or stand elsewhere than at 0, each with the angle of every image [degree].

    A direction that nobody tells is that of NeXus for a horizontal axis, (-1, 0, 0).
    """
    given = content.meta.get("goniometer")
    if not isinstance(given, Mapping) or not 0 < content.rows <= _MOST_ANGLES:
        return {}
    axes: dict[str, Node] = {}
    on = "."
    for name in _AXES:
        about = given.get(name)
        if not isinstance(about, Mapping):
            continue
        start, step = float(about.get("start") or 0.0), float(about.get("increment") or 0.0)
        if not (math.isfinite(start) and math.isfinite(step)) or start == step == 0.0:
            continue
        vector = np.asarray(about.get("axis", (-1.0, 0.0, 0.0)), "<f8")
        attributes = {
            "transformation_type": "rotation",
            "vector": vector if vector.shape == (3,) else np.array([-1.0, 0.0, 0.0]),
            "offset": np.zeros(3),
            "depends_on": on,
            "units": "deg",
        }
        axes[name] = Dataset(start + step * np.arange(content.rows), attributes)
        if step:
            axes[f"{name}_end"] = Dataset(start + step * np.arange(1, content.rows + 1), {"units": "deg"})
        on = f"{_GONIOMETER}/{name}"
    return axes


def _instrument(content: MasterContent) -> Group:
    items = known(content.meta, {"instrument_name": ("name", None), "time_zone": ("time_zone", None)})
    items.update(_attenuator(content.meta))
    items["beam"] = _beam(content.meta)
    items["detector"] = detector(content, _software())
    return Group("NXinstrument", items)


def _attenuator(meta: Mapping[str, Any]) -> dict[str, Node]:
    found = known(meta, {"attenuator_transmission": ("attenuator_transmission", None)})
    return {"attenuator": Group("NXattenuator", found)} if found else {}


def _beam(meta: Mapping[str, Any]) -> Group:
    """Wavelength and energy; each from the other where one is missing."""
    wavelength, energy = meta.get("incident_wavelength"), meta.get("incident_energy")
    if wavelength is None and energy:
        wavelength = _EV_ANGSTROM / float(energy)
    if energy is None and wavelength:
        energy = _EV_ANGSTROM / float(wavelength)
    facts = {**meta, "incident_wavelength": wavelength, "incident_energy": energy}
    names = {
        "incident_wavelength": ("incident_wavelength", "angstrom"),
        "incident_energy": ("incident_energy", "eV"),
        "total_flux": ("total_flux", "Hz"),
    }
    beam = Group("NXbeam", known(facts, names))
    beam.items.update(known(meta, {"beam_profile": ("profile", None), "flux": ("flux", "Hz/m^2")}))
    size = meta.get("beam_size")
    if size is not None:
        beam.items["incident_beam_size"] = Dataset(np.asarray(size, "<f8"), {"units": "m"})
    return beam


def _data(content: MasterContent) -> Group:
    """The images: by links, as one virtual dataset, or nothing where the images themselves are put later."""
    if content.layout == "legacy":
        group = Group("NXdata", _links(content, IMAGE_PATH))
        if content.files:
            group.attributes["signal"] = "data_000001"
        return group
    group = Group("NXdata", attributes={"signal": "data"})
    if content.layout == "vds" and any(rows for _, rows in content.files):
        image = content.image
        pieces = [Piece(name, IMAGE_PATH, rows) for name, rows in content.files]
        group.items["data"] = VirtualDataset(pieces, image.shape, image.dtype, image.fill_value)
    return group


def _series(content: MasterContent) -> Group:
    return Group("NXcollection", {} if content.layout == "integrated" else _links(content, SERIES_PATH))


def _links(content: MasterContent, target: str) -> dict[str, Node]:
    return {f"data_{number:06d}": ExternalLink(name, target) for number, (name, _) in enumerate(content.files, 1)}


def _acquisition(content: MasterContent) -> Group:
    """What our own reader and a curious person want to know about the run."""
    requested = -1 if content.frames_requested is None else content.frames_requested
    return Group(
        "NXcollection",
        {
            "name": Dataset(content.acquisition),
            "source": Dataset(content.image.source),
            "series": Dataset(json.dumps(list(content.series))),
            "frames_requested": Dataset(np.int64(requested)),
            "images_written": Dataset(np.int64(content.images_written)),
            "started": Dataset(content.started, {"units": "s"}),
            "ended": Dataset(float("nan") if content.ended is None else content.ended, {"units": "s"}),
            "end_reason": Dataset(content.end_reason, room=_REASON_ROOM if content.layout == "integrated" else 0),
            "layout": Dataset(content.layout),
            "meta": Dataset(json.dumps(dict(content.meta), default=_described)),
        },
    )


def _ledger(ledger: Mapping[str, Any]) -> Group:
    """The ledger as JSON, and each of its numbers as a dataset of its own."""
    group = Group("NXcollection", _numbers(ledger))
    group.items["json"] = Dataset(json.dumps(dict(ledger), default=str))
    return group


def _ledger_text(ledger: Mapping[str, Any] | None) -> Dataset:
    """Return the ledger as text in a place of fixed size."""
    text = "" if ledger is None else json.dumps(dict(ledger), default=str)
    if len(text.encode()) > _LEDGER_ROOM:
        text = json.dumps({"too_large_for_this_file": len(text)})
    return Dataset(text, room=_LEDGER_ROOM)


def _described(value: Any) -> Any:
    """Return what JSON can say of a value that is not of its kinds: large arrays are in the file as datasets."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= 64 else f"array of {value.dtype} {value.shape}"
    return value.item() if isinstance(value, np.generic) else str(value)


def _numbers(tree: Mapping[str, Any]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in tree.items():
        name = str(key).replace("/", "_") or "_"
        if isinstance(value, Mapping):
            if inner := _numbers(value):
                found[name] = Group("NXcollection", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = Dataset(np.float64(value) if isinstance(value, float) else np.int64(value))
    return found
