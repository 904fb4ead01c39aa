"""What ``sisockdaq integrate`` is asked for: settings of a command line, over those of a site's integrator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sisockdaq.errors import ConfigurationError
from sisockdaq.schema import split_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sisockdaq.integrate.settings import FactorSettings, IntegrationSettings
    from sisockdaq.reprocessing import Recorded

__all__ = [
    "SiteSettings",
    "cake_bins",
    "checked",
    "frame_slice",
    "of_site",
    "pair",
    "put",
    "recorded_factors",
    "settle_cake",
]


@dataclass
class SiteSettings:
    """What a site's integrator does, and where its files are.

    Attributes
    ----------
    settings : dict
        Those of `IntegrationSettings` that the site gives.
    resolve : callable
        Finds the site's files.
    pixel_size : float or None
        [m]
    node : str
        Name of the integrator.
    """

    settings: dict[str, Any]
    resolve: Callable[[str], Path]
    pixel_size: float | None
    node: str


def of_site(text: str) -> SiteSettings:
    """Read the settings of a site's integrator; `text` is its file or folder, with ``::NODE`` for one of several."""
    from sisockdaq.integrate.settings import IntegrationSettings
    from sisockdaq.site import load_site

    place, _, wanted = text.partition("::")
    site = load_site(place)
    nodes = {name: entry for name, entry in site.nodes.items() if entry.type == "integrator"}
    if wanted and wanted not in nodes:
        raise ConfigurationError(
            f"{place} has no integrator {wanted}", remedy=f"one of {', '.join(nodes) or 'none at all'}"
        )
    if not wanted and len(nodes) != 1:
        many = f"has several integrators: {', '.join(nodes)}" if nodes else "has no integrator"
        raise ConfigurationError(f"{place} {many}", remedy=f"name one as {place}::NODE" if nodes else "leave it out")
    name = wanted or next(iter(nodes))
    options = nodes[name].options
    known = {name: value for name, value in options.items() if name in IntegrationSettings.model_fields}
    if site.detector is not None and known.get("geometry") is None and site.detector.geometry is not None:
        given = site.detector.geometry
        known["geometry"] = given if isinstance(given, str) else given.model_dump(exclude_none=True)
    if site.detector is not None and known.get("mask") is None:
        known["mask"] = site.detector.mask
    return SiteSettings(known, site.resolve_input, None if site.detector is None else site.detector.pixel_size, name)


_FILES = ("geometry", "mask", "dark", "flat", "absorption", "background")
"""Settings that name files: those of a command line are relative to the folder that it is given in."""


def put(known: dict[str, Any], given: dict[str, Any], texts: Sequence[str]) -> None:
    """Put what the command line says over what is known."""
    from sisockdaq.site import read_setting

    for text in texts:
        path, value = read_setting(text)
        place = given
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"--set {text}: {part} has no such parts")
            place = inner
        place[path[-1]] = value
    for name in _FILES:
        if isinstance(given.get(name), str):
            file, separator, dataset = given[name].partition("::")
            given[name] = f"{Path(file).expanduser().absolute()}{separator}{dataset}"
    known.update(given)
    checked({"geometry": "none yet", **known})


def checked(known: dict[str, Any]) -> IntegrationSettings:
    """Return the settings; all that is wrong with them is told at once."""
    from pydantic import ValidationError

    from sisockdaq.integrate.settings import IntegrationSettings

    try:
        return IntegrationSettings(**known)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        raise ConfigurationError("\n".join(lines), problems=lines) from None


def recorded_factors(
    settings: IntegrationSettings, recorded: Recorded, node: str | None
) -> dict[str, npt.NDArray[np.float64]]:
    """Return monitor and transmission of each recorded frame, where the settings name fields for them.

    The field itself where the file has it, else what an integrator divided the live frames by, if that was this field:
    the one of the name `node`, or the only one.

    Raises
    ------
    ConfigurationError
        When the file does not say.
    """
    from sisockdaq.integrate.settings import FactorSettings

    found: dict[str, npt.NDArray[np.float64]] = {}
    for name in settings.factors:
        wanted = getattr(settings, name)
        if not isinstance(wanted, FactorSettings):
            continue
        source, field = split_name(wanted.field)
        own = recorded.series(field)
        live = {each: values for each, values in recorded.series(name).items() if _was_divided(recorded, each, wanted)}
        if source in own:
            found[name] = own[source]
        elif node in live:
            found[name] = live[node]
        elif len(live) == 1:
            found[name] = next(iter(live.values()))
        else:
            there = ", ".join(f"{each}::{name}" for each in recorded.series(name))
            raise ConfigurationError(
                f"{recorded.path} has no {name} {wanted.field} of its frames{there and f'; it has {there}'}",
                remedy=f"give --{name} as a number, as a field of the file, or none",
            )
    return found


def _was_divided(recorded: Recorded, source: str, wanted: FactorSettings) -> bool:
    """Tell whether a live integrator took its factor from the wanted field; true where the file does not say."""
    from sisockdaq.integrate.settings import FACTORS

    epochs = recorded.epochs.get(source)
    settings = [each.get("settings", {}).get(name) for each in epochs or () for name in FACTORS]
    return epochs is None or any(isinstance(each, dict) and each.get("field") == wanted.field for each in settings)


def pair(option: str, text: str | None) -> tuple[float, float] | None:
    """Read the two ends of a range."""
    if text is None:
        return None
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(f'{option} "{text}" is no range', remedy=f"write it as {option}=0.1,20") from None
    return first, second


def cake_bins(text: str) -> dict[str, int] | None:
    """Read the numbers of a cake's bins, those of the azimuth first; none for no cake."""
    if text in ("none", "null"):
        return None
    try:
        azimuthal, radial = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ConfigurationError(
            f'--cake "{text}" is no number of bins', remedy="write azimuthal by radial ones, as 360x200, or none"
        ) from None
    return {"azimuth_bins": azimuthal, "bins": radial}


def settle_cake(known: dict[str, Any], given: Collection[str], formats: Collection[str]) -> None:
    """Leave cakes out that no format has; raise `ConfigurationError` where the command line asks for them."""
    if "nxazint" in formats or known.get("cake") in (None, False):
        return
    if "cake" in given:
        raise ConfigurationError(
            f"there is no room for cakes in {', '.join(formats)}", remedy="add --format nxazint, or leave --cake out"
        )
    known["cake"] = None


def frame_slice(text: str | None) -> slice:
    """Read which frames are wanted."""
    if text is None:
        return slice(None)
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
        if not 2 <= len(parts) <= 3:
            raise ValueError
    except ValueError:
        raise ConfigurationError(f'--frames "{text}" is no range of frames', remedy="write it as 0:100") from None
    return slice(*parts)
