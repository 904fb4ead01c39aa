"""A file as the rules see it: its groups by their NeXus class, its images wherever they are, its low-level properties.

Tolerant: what is missing is None, a link that leads nowhere is told by `dangling`, and nothing raises for a file that
is merely wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import h5py

from sisockdaq.nexus._strings import as_text

__all__ = ["View", "attribute_text", "is_variable_text", "superblock_version"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class View:
    """One open file.

    Parameters
    ----------
    hdf5 : h5py.File
    path : Path
    """

    def __init__(self, hdf5: h5py.File, path: Path) -> None:
        self.hdf5, self.path = hdf5, path

    @cached_property
    def entry(self) -> h5py.Group | None:
        """The first entry, or the group of that name."""
        return self.find(self.hdf5, "NXentry", "entry")

    @cached_property
    def data(self) -> h5py.Group | None:
        """The images' group."""
        return self.find(self.entry, "NXdata", "data")

    @cached_property
    def sample(self) -> h5py.Group | None:
        """The sample."""
        return self.find(self.entry, "NXsample", "sample")

    @cached_property
    def source(self) -> h5py.Group | None:
        """The source: beside the instrument, or in it as in older files."""
        return self.find(self.entry, "NXsource", "source") or self.find(self.instrument, "NXsource", "source")

    @cached_property
    def instrument(self) -> h5py.Group | None:
        """The instrument."""
        return self.find(self.entry, "NXinstrument", "instrument")

    @cached_property
    def beam(self) -> h5py.Group | None:
        """The beam: in the instrument, or in the sample as in older files."""
        return self.find(self.instrument, "NXbeam", "beam") or self.find(self.sample, "NXbeam", "beam")

    @cached_property
    def detector(self) -> h5py.Group | None:
        """The detector."""
        return self.find(self.instrument, "NXdetector", "detector")

    @cached_property
    def specific(self) -> h5py.Group | None:
        """DECTRIS' own numbers of the detector."""
        return self.find(self.detector, None, "detectorSpecific")

    @cached_property
    def module(self) -> h5py.Group | None:
        """The first module of the detector."""
        return self.find(self.detector, "NXdetector_module", "module")

    def role(self, name: str) -> h5py.Group | None:
        """Return the group of that role (the name of a property)."""
        found: h5py.Group | None = getattr(self, name)
        return found

    @staticmethod
    def find(parent: h5py.Group | None, nx_class: str | None, name: str) -> h5py.Group | None:
        """Return the child of that name, if it is a group of the class or without one; else the first of the class."""
        if parent is None:
            return None
        named = child(parent, name)
        if isinstance(named, h5py.Group) and (
            nx_class is None or attribute_text(named, "NX_class") in (None, nx_class)
        ):
            return named
        groups = (each for key in parent if isinstance(each := child(parent, key), h5py.Group))
        return next((each for each in groups if nx_class and attribute_text(each, "NX_class") == nx_class), None)

    @cached_property
    def definitions(self) -> dict[str, list[h5py.Group]]:
        """The groups that say of themselves which definition they are by: the entry, and groups in it."""
        found: dict[str, list[h5py.Group]] = {}
        if self.entry is None:
            return found
        members = [child(self.entry, name) for name in self.entry]
        below = [each for each in members if isinstance(each, h5py.Group)]
        below = [each for each in below if attribute_text(each, "NX_class") in ("NXsubentry", "NXentry")]
        for each in (self.entry, *below):
            name = child(each, "definition")
            if isinstance(name, h5py.Dataset) and name.dtype.kind in "SO":
                found.setdefault(as_text(name), []).append(each)
        return found

    @cached_property
    def is_data_file(self) -> bool:
        """Whether the file only holds what a master points to."""
        entry = self.entry
        return entry is not None and "definition" not in entry and self.instrument is None and bool(self.images)

    @cached_property
    def images(self) -> dict[str, h5py.Dataset]:
        """The datasets of images: ``data``, or ``data_000001`` and so on."""
        if self.data is None:
            return {}
        names = [name for name in self.data if name == "data" or (name.startswith("data_") and name[5:].isdigit())]
        found = {name: child(self.data, name) for name in sorted(names)}
        return {name: item for name, item in found.items() if isinstance(item, h5py.Dataset)}

    @cached_property
    def image_files(self) -> list[Path]:
        """The files that hold the images."""
        found: dict[Path, None] = {}
        for dataset in self.images.values():
            if dataset.is_virtual:
                folder = Path(dataset.file.filename).parent
                names = {source.file_name for source in dataset.virtual_sources()}
                found.update(dict.fromkeys(self.path if name == "." else folder / name for name in sorted(names)))
            else:
                found[Path(dataset.file.filename)] = None
        return list(found)

    @cached_property
    def dangling(self) -> list[tuple[str, str]]:
        """Paths of links that lead nowhere, and where they should lead."""
        found = []
        for group in self.groups:
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink) and child(group, name) is None:
                    target = f"{link.filename}:{link.path}" if isinstance(link, h5py.ExternalLink) else link.path
                    found.append((f"{group.name.rstrip('/')}/{name}", target))
        return found

    @cached_property
    def groups(self) -> list[h5py.Group]:
        """All groups of this very file, in the order in which HDF5 visits them."""
        return [self.hdf5, *(item for item in self._objects() if isinstance(item, h5py.Group))]

    @cached_property
    def objects(self) -> list[h5py.HLObject]:
        """All groups and datasets of this very file, in the order in which HDF5 visits them."""
        return [self.hdf5, *self._objects()]

    def _objects(self) -> Iterator[h5py.HLObject]:
        found: list[h5py.HLObject] = []
        self.hdf5.visititems(lambda _, item: found.append(item))
        return iter(found)


def child(group: h5py.Group, name: str) -> h5py.HLObject | None:
    """Return a member; None where it is missing, or where its link leads nowhere or to a broken file."""
    try:
        return group[name]
    except (KeyError, OSError, RuntimeError):
        return None


def attribute_text(item: h5py.HLObject, name: str) -> str | None:
    """Return an attribute as text; None where there is none."""
    try:
        value = item.attrs.get(name)
    except OSError:
        return None
    return None if value is None else as_text(value)


def is_variable_text(item: h5py.HLObject, attribute: str) -> bool:
    """Whether an attribute is a string of variable length."""
    kind = item.attrs.get_id(attribute).get_type()
    return isinstance(kind, h5py.h5t.TypeStringID) and bool(kind.is_variable_str())


def superblock_version(path: Path) -> int | None:
    """Return the version of a file's superblock (HDF5 file format, II); None where there is none."""
    with path.open("rb") as file:
        position = 0
        while position < 2**20:  # behind a user block it is at 512, 1024, …
            file.seek(position)
            head = file.read(9)
            if len(head) < 9:
                return None
            if head.startswith(_SIGNATURE):
                return head[8]
            position = position * 2 or 512
    return None
