"""A receiver's detector and ports under the names of std-daq's configuration: shown, changed, and checked whole. Pure.

The keys of std-daq (seed ``std-daq-client``) are ``bit_depth``, ``detector_name``, ``detector_type``,
``image_pixel_height``, ``image_pixel_width``, ``n_modules``, ``start_udp_port`` and ``module_positions``; a *module* is
there what arrives at one place of the image, so a quarter of an EIGER module is one. Beside them stand the site
file's own: ``interfaces``, ``readout_rows``, ``link_speed``, ``gap_value``, ``fill_value`` and ``module_ids``.

A change names some keys; the others keep their values. What follows from others (the image's size and the positions,
where nobody has set them) follows again. Either the whole result is possible, or every reason is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.errors import ConfigurationError

__all__ = ["Addresses", "changed", "to_config"]

Addresses = list[tuple[str, int]]
"""Where each stream arrives: address of this machine, UDP port."""

_RENAMED = {"detector_name": "name", "detector_type": "model"}
_OWN = ("bit_depth", "interfaces", "readout_rows", "link_speed", "gap_value", "fill_value", "module_ids")
_KEYS = (
    *_RENAMED,
    *_OWN,
    "image_pixel_height",
    "image_pixel_width",
    "n_modules",
    "start_udp_port",
    "module_positions",
)

_QUARTERS = 4
"""Entries of one EIGER module, where their places follow from the number of modules."""

_LAST_PORT = 65535


def to_config(detector: DetectorOptions, addresses: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return the configuration, JSON-able."""
    height, width = detector.shape
    return {
        "bit_depth": detector.bit_depth,
        "detector_name": detector.name or detector.model.upper(),
        "detector_type": detector.model,
        "image_pixel_height": height,
        "image_pixel_width": width,
        "n_modules": len(detector.positions),
        "start_udp_port": addresses[0][1],
        "module_positions": {str(index): list(place) for index, place in enumerate(detector.positions)},
        "interfaces": detector.interfaces,
        "readout_rows": detector.readout_rows,
        "link_speed": detector.link_speed,
        "gap_value": detector.gap_value,
        "fill_value": detector.fill_value,
        "module_ids": detector.module_ids,
    }


def changed(
    detector: DetectorOptions, addresses: Sequence[tuple[str, int]], changes: Mapping[str, Any]
) -> tuple[DetectorOptions, Addresses]:
    """Return detector and addresses after a change.

    Parameters
    ----------
    detector : DetectorOptions
    addresses : sequence of (str, int)
        One a stream.
    changes : mapping
        Keys as `to_config` has them.

    Raises
    ------
    ConfigurationError
        With every reason; what a change asks for is then not possible.
    """
    if not isinstance(changes, Mapping):
        raise ConfigurationError(f"a configuration is names with values, not {changes!r}")
    problems = [f"{key} is not known here (one of {', '.join(sorted(_KEYS))})" for key in changes if key not in _KEYS]
    values = detector.model_dump(exclude_unset=True)
    for key, value in changes.items():
        if key in _RENAMED or key in _OWN:
            values[_RENAMED.get(key, key)] = value
    if values.get("name") == detector.model.upper() and not detector.name:
        values["name"] = ""  # it was the model that was shown
    if values["model"] == "gigafrost":
        problems += _size_gigafrost(detector, values, changes)
    else:
        problems += _place_modules(detector, values, changes)
        problems += _size_image(detector, values, changes)
    made: DetectorOptions | None = None
    try:
        made = DetectorOptions.checked(**values)
    except ConfigurationError as error:
        problems += [_in_our_words(problem) for problem in error.problems]
    ports = list(addresses)
    if made is not None:
        ports = _ports(made, addresses, changes, problems)
    elif "start_udp_port" in changes:
        _first_port(changes["start_udp_port"], 1, problems)
    if problems or made is None:
        raise ConfigurationError("; ".join(problems), remedy="nothing was changed", problems=problems)
    if made.image_size is not None and made.image_size == made.extent:
        made = made.model_copy(update={"image_size": None})
    return made, ports


def _in_our_words(problem: str) -> str:
    text = problem.removeprefix("detector.").removeprefix(": ")
    for key, option in _RENAMED.items():
        if text.startswith(f"{option}:"):
            return key + text.removeprefix(option)
    return text


def _place_modules(detector: DetectorOptions, values: dict[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """Set positions and number of modules; return what is wrong with them."""
    wanted = changes.get("n_modules", None)
    if "n_modules" in changes and (isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1):
        return [f"n_modules is {wanted!r}: a whole number from 1 on is needed"]
    shown = {index: tuple(place) for index, place in enumerate(detector.positions)}
    given = changes.get("module_positions")
    if given is not None:
        positions, problem = _positions(given)
        if problem:
            return [problem]
        if wanted is not None and len(positions) != wanted:
            return [f"n_modules is {wanted}, module_positions has {len(positions)} entries"]
        if detector.module_positions is not None or positions != shown:
            values["module_positions"], values["modules"] = positions, None
            return []
        wanted = len(positions)  # as they follow from the number of modules
    elif detector.module_positions is not None:
        count = len(detector.module_positions)
        if wanted not in (None, count):
            return [f"n_modules is {wanted}, module_positions has {count} entries   → give positions as well"]
        return []
    if wanted is None:
        return []
    if values["model"] == "eiger":
        if wanted % _QUARTERS:
            return [f"n_modules is {wanted}: an EIGER module has {_QUARTERS}   → a multiple, or module_positions"]
        wanted //= _QUARTERS
    values["modules"] = wanted
    return []


def _positions(given: Any) -> tuple[dict[int, tuple[int, ...]], str]:
    """Read positions with numbers or text as keys."""
    if not isinstance(given, Mapping):
        return {}, f"module_positions is {given!r}: names with places are needed, as {{'0': [x0, y0, x1, y1]}}"
    found: dict[int, tuple[int, ...]] = {}
    for key, place in given.items():
        try:
            x0, y0, x1, y1 = (int(end) for end in place)
            found[int(key)] = (x0, y0, x1, y1)
        except (TypeError, ValueError):
            return {}, f"module_positions.{key} is {place!r}: a module's number and [x0, y0, x1, y1] are needed"
    return found, ""


def _size_image(detector: DetectorOptions, values: dict[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """Set the image's size where the change has one; return what is wrong with it."""
    names = ("image_pixel_height", "image_pixel_width")
    if not any(name in changes for name in names):
        return []
    size = [changes.get(name, now) for name, now in zip(names, detector.shape, strict=True)]
    wrong = [
        f"{name} is {value!r}: a whole number from 1 on is needed"
        for name, value in zip(names, size, strict=True)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    if not wrong:
        values["image_size"] = tuple(size)
    return wrong


def _size_gigafrost(detector: DetectorOptions, values: dict[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """Set the image's size of a detector whose quadrants follow from it; return what is wrong."""
    for key, option in (("image_pixel_height", "image_height"), ("image_pixel_width", "image_width")):
        if key in changes:
            values[option] = changes[key]
    shown = to_config(detector, [("", 0)])
    return [
        f"{key} of a GigaFRoST follows from the image's size"
        for key in ("n_modules", "module_positions")
        if key in changes and changes[key] != shown[key] and detector.model == "gigafrost"
    ]


def _ports(
    detector: DetectorOptions, addresses: Sequence[tuple[str, int]], changes: Mapping[str, Any], problems: list[str]
) -> Addresses:
    """Return one address a stream: as they are while number and start are, else consecutive from the start."""
    streams, first = detector.streams, addresses[0][1]
    wanted = first
    if "start_udp_port" in changes:
        wanted = _first_port(changes["start_udp_port"], streams, problems)
    if wanted == first and streams <= len(addresses):
        return list(addresses[:streams])
    if wanted != 0 and wanted + streams - 1 > _LAST_PORT:
        problems.append(f"start_udp_port is {wanted}: {streams} streams reach beyond port {_LAST_PORT}")
    return [(addresses[0][0], 0 if wanted == 0 else wanted + stream) for stream in range(streams)]


def _first_port(value: Any, streams: int, problems: list[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LAST_PORT:
        problems.append(f"start_udp_port is {value!r}: a UDP port, 1 to {_LAST_PORT}, is needed")
        return 0
    return value
