"""What each known reader demands beyond fields, as found by trying them on files (contract "Files").

neggia and durin are the plug-ins by which XDS reads; neggia reads HDF5 by itself, which is why it is the strictest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import h5py
import numpy as np

from sisockdaq.nexus.check._fields import where
from sisockdaq.nexus.check._rules import Demand, Problem, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child, is_variable_text, superblock_version
from sisockdaq.nexus.filters import compression_of
from sisockdaq.nexus.results import SPOTS_PATH

__all__ = ["FILE_RULES", "READER_RULES"]

_OLDEST_NEW_SUPERBLOCK = 3
_LARGEST_GAP_CHECK = 1_000_000
"""Chunks that are counted at most when looking for missing images."""

_SPOT_LISTS = ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity")


def _superblocks(view: View) -> Iterable[Problem]:
    for path in dict.fromkeys((view.path, *view.image_files)):
        version = superblock_version(path) if path.is_file() else None
        if version is not None and version >= _OLDEST_NEW_SUPERBLOCK:
            yield path.name, f"has superblock version {version}; write with libver=('earliest', 'v110')"


def _virtual(view: View) -> Iterable[Problem]:
    for dataset in view.images.values():
        if dataset.is_virtual:
            yield where(view, "data", "data"), "is a virtual dataset; link data_000001 … instead (master: legacy)"


def _external_virtual(view: View) -> Iterable[Problem]:
    for dataset in view.images.values():
        if dataset.is_virtual:
            missing = [path.name for path in view.image_files if not path.is_file()]
            if missing:
                yield dataset.name, f"shows {', '.join(missing)}, which is not there"


def _packing(view: View) -> Iterable[Problem]:
    for name, dataset in view.images.items():
        if not dataset.is_virtual and (packing := compression_of(dataset)) not in ("bslz4", "lz4", "none"):
            yield where(view, "data", name), f"is packed with {packing or 'a filter'} that it does not know"


def _specific_mask(view: View) -> h5py.Dataset | None:
    found = None if view.specific is None else child(view.specific, "pixel_mask")
    return found if isinstance(found, h5py.Dataset) else None


def _specific(view: View) -> Iterable[Problem]:
    if view.specific is None:
        yield where(view, "specific"), "is missing"


def _number_of_images(view: View) -> Iterable[Problem]:
    place = where(view, "specific", "nimages")
    counts = []
    for name in ("nimages", "ntrigger"):
        found = None if view.specific is None else child(view.specific, name)
        if not isinstance(found, h5py.Dataset):
            if name == "nimages":
                yield place, "is missing"
                return
            continue
        value = found[()]
        if found.dtype.kind not in "iu" or np.size(value) != 1 or int(np.ravel(value)[0]) <= 0:
            yield where(view, "specific", name), f"is {value}; a positive integer is needed"
            return
        counts.append(int(np.ravel(value)[0]))
    have = sum(dataset.shape[0] for dataset in view.images.values() if dataset.ndim == 3)
    if have and int(np.prod(counts)) > have:
        yield place, f"promises {int(np.prod(counts))} images, {have} are there"


def _mask_there(view: View) -> Iterable[Problem]:
    if _specific_mask(view) is None:
        yield where(view, "specific", "pixel_mask"), "is missing"


def _mask_contiguous(view: View) -> Iterable[Problem]:
    mask = _specific_mask(view)
    if mask is not None and mask.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
        yield mask.name, "is not contiguous (chunked or compressed)"


def _mask_type(view: View) -> Iterable[Problem]:
    mask = _specific_mask(view)
    if mask is not None and mask.dtype != np.uint32:
        yield mask.name, f"is {mask.dtype} instead of uint32"


def _mask_is_one(view: View) -> Iterable[Problem]:
    mask = _specific_mask(view)
    own = None if view.detector is None else child(view.detector, "pixel_mask")
    if mask is not None and own != mask:
        yield where(view, "detector", "pixel_mask"), "is not the same object as detectorSpecific/pixel_mask (hard link)"


def _pixels_in_detector(view: View) -> Iterable[Problem]:
    for name in ("x_pixels_in_detector", "y_pixels_in_detector"):
        if view.specific is not None and not isinstance(child(view.specific, name), h5py.Dataset):
            yield where(view, "specific", name), "is missing"


def _linked_data(view: View) -> Iterable[Problem]:
    if view.images and "data_000001" not in view.images and not _is_whole(view):
        yield where(view, "data", "data_000001"), "is missing"


def _is_whole(view: View) -> bool:
    """Whether the images are in this very file."""
    found = view.images.get("data")
    return found is not None and not found.is_virtual


def _numbered(view: View) -> Iterable[Problem]:
    numbers = sorted(int(name[5:]) for name in view.images if name != "data")
    if numbers and numbers != list(range(1, len(numbers) + 1)):
        yield where(view, "data"), "has gaps in data_000001, data_000002, …"


def _counted_twice(view: View) -> Iterable[Problem]:
    if "data" in view.images and len(view.images) > 1:
        yield where(view, "data", "data"), "and data_00000N are side by side: images count twice"


def _other_data(view: View) -> Iterable[Problem]:
    if view.data is None:
        return
    for name in view.data:
        if name.startswith("data") and name not in view.images:
            yield where(view, "data", name), 'begins with "data" and is taken for images'


def _last_of_class(view: View) -> Iterable[Problem]:
    """Durin takes the last group of a class in the order of names."""
    for nx_class, role in (("NXdata", "data"), ("NXdetector", "detector")):
        groups = [group for group in view.groups if attribute_text(group, "NX_class") == nx_class]
        if groups and view.role(role) is not None and groups[-1] != view.role(role):
            yield groups[-1].name, f"is the last {nx_class} and is taken instead of {where(view, role)}"


def _first_of_class(view: View) -> Iterable[Problem]:
    """DIALS takes the first NXdata of the entry, in the order of names."""
    if view.entry is None or view.data is None:
        return
    members = [child(view.entry, name) for name in view.entry]
    groups = [each for each in members if isinstance(each, h5py.Group) and attribute_text(each, "NX_class") == "NXdata"]
    if groups and groups[0] != view.data:
        yield groups[0].name, f"is the first NXdata and is taken instead of {view.data.name}"


def _classes(view: View) -> Iterable[Problem]:
    for group in view.groups:
        if group.name != "/" and "NX_class" not in group.attrs:
            yield group.name, "has no NX_class"


def _fixed_attributes(view: View) -> Iterable[Problem]:
    for item in view.objects:
        for name in item.attrs:
            if is_variable_text(item, name):
                yield item.name, f"has attribute {name} of variable length"


def _fixed_texts(view: View) -> Iterable[Problem]:
    for item in view.objects:
        kind = item.id.get_type() if isinstance(item, h5py.Dataset) else None
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
            yield item.name, "is a text of variable length"


def _missing_images(view: View) -> Iterator[Problem]:
    for name, dataset in view.images.items():
        if dataset.is_virtual or dataset.chunks is None or name == "data":
            continue
        if dataset.chunks[0] == 1 and dataset.chunks[1:] == dataset.shape[1:] and len(dataset) < _LARGEST_GAP_CHECK:
            empty = len(dataset) - dataset.id.get_num_chunks()
            if empty > 0:
                yield where(view, "data", name), f"has {empty} images that never came: it stops there"


def _spots(view: View) -> Iterable[Problem]:
    group = child(view.hdf5, SPOTS_PATH)
    if not isinstance(group, h5py.Group):
        return
    number = child(group, "nPeaks")
    if not isinstance(number, h5py.Dataset):
        yield f"{SPOTS_PATH}/nPeaks", "is missing"
        return
    if number.ndim != 1 or number.dtype.kind not in "iu":
        yield number.name, f"is {number.dtype} {number.shape}; one integer an image is needed"
        return
    for name in _SPOT_LISTS:
        found = child(group, name)
        if not isinstance(found, h5py.Dataset):
            yield f"{SPOTS_PATH}/{name}", "is missing"
        elif found.ndim != 2 or found.shape[0] != number.shape[0]:
            yield found.name, f"is {found.shape}; ({number.shape[0]}, most spots) is needed"
        elif number.shape[0] and int(np.max(number[()])) > found.shape[1]:
            yield found.name, f"has room for {found.shape[1]} spots, nPeaks says {int(np.max(number[()]))}"


def _rule(key: str, problems: object, *required: str, recommended: tuple[str, ...] = ()) -> Rule:
    by: dict[str, Demand] = dict.fromkeys(required, "required")
    by.update(dict.fromkeys(recommended, "recommended"))
    return Rule(key, by, problems)  # type: ignore[arg-type]


FILE_RULES: tuple[Rule, ...] = (
    _rule("file.superblock", _superblocks, "neggia", "Albula"),
    _rule("file.classes", _classes, "durin", recommended=("NXmx",)),
    _rule("file.attributes", _fixed_attributes, "durin", "Albula"),
    _rule("file.texts", _fixed_texts, "Albula"),
)
"""What holds for master and data files alike."""

READER_RULES: tuple[Rule, ...] = (
    *FILE_RULES,
    _rule("specific", _specific, "neggia", "Albula"),
    _rule("specific.nimages", _number_of_images, "neggia", "Albula"),
    _rule("specific.pixels", _pixels_in_detector, "Albula"),
    _rule("mask.there", _mask_there, "neggia", "Albula"),
    _rule("mask.contiguous", _mask_contiguous, "neggia"),
    _rule("mask.type", _mask_type, "Albula", recommended=("neggia",)),
    _rule("mask.one", _mask_is_one, "Albula"),
    _rule("data.virtual", _virtual, "neggia"),
    _rule("data.sources", _external_virtual, "durin", "fabio", "Albula", "CrystFEL", "nxmx"),
    _rule("data.linked", _linked_data, "neggia", "Albula"),
    _rule("data.numbered", _numbered, "neggia", "durin", "Albula"),
    _rule("data.twice", _counted_twice, "fabio"),
    _rule("data.names", _other_data, "fabio"),
    _rule("data.packing", _packing, "neggia"),
    _rule("data.whole", _missing_images, "durin"),
    _rule("data.last", _last_of_class, "durin"),
    _rule("data.first", _first_of_class, "nxmx"),
    _rule("spots", _spots, "CrystFEL"),
)
