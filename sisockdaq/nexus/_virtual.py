"""Per-image numbers and results of all data files as virtual datasets of one master, at their usual places. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sisockdaq.nexus.layout import FRAME_PLACES, SERIES_PATH, DataFilePlan, frame_fields
from sisockdaq.nexus.results import ResultsPlan, SecondName, place_attributes
from sisockdaq.nexus.tree import ExternalLink, Group, Node, Piece, VirtualDataset

__all__ = ["virtual_places"]

Files = Sequence[tuple[str, int]]


def virtual_places(entry: Group, plan: DataFilePlan, files: Files) -> None:
    """Add to an entry what the data files have at their second names."""
    if not any(rows for _, rows in files):
        return
    fields = {each.name: each for each in frame_fields(plan)}
    for place in FRAME_PLACES:
        field = fields.get(place.dataset)
        if field is not None:
            pieces = _pieces(plan.image.source, place, files)
            _put(entry, place, VirtualDataset(pieces, (), field.dtype, field.empty), FRAME_PLACES)
    for results in plan.results:
        for place in results.places:
            _put(entry, place, _result(results, place, files), results.places)


def _result(results: ResultsPlan, place: SecondName, files: Files) -> Node:
    field = next((each for each in results.fields if each.name == place.dataset), None)
    if field is None:  # an axis: the same in all files
        return ExternalLink(files[0][0], f"{SERIES_PATH}/{results.source}/{place.dataset}")
    shape = () if field.scalar else (field.width,)
    attributes = {"units": field.units, "description": field.description}
    return VirtualDataset(_pieces(results.source, place, files), shape, field.dtype, field.empty, attributes)


def _pieces(source: str, place: SecondName, files: Files) -> list[Piece]:
    return [Piece(name, f"{SERIES_PATH}/{source}/{place.dataset}", rows) for name, rows in files]


def _put(entry: Group, place: SecondName, node: Node, places: Sequence[SecondName]) -> None:
    """Put a node at its place, unless another is there; groups on the way are made."""
    *parents, name = place.path.removeprefix("/entry/").split("/")
    group, path = entry, "/entry"
    for parent in parents:
        path = f"{path}/{parent}"
        made = group.items.get(parent)
        if not isinstance(made, Group):
            attributes = place_attributes(path, places, in_master=True)
            made = Group(str(attributes.pop("NX_class")), {}, attributes)
            group.items[parent] = made
        group = made
    group.items.setdefault(name, node)
