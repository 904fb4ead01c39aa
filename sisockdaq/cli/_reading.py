"""What the commands that read a network share: which site, spans of time, and forms of output."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sisockdaq.errors import ConfigurationError
from sisockdaq.schema import plain_values
from sisockdaq.state import StateDirectory

if TYPE_CHECKING:
    from sisockdaq.client import Client, Dataset

__all__ = [
    "Last", "Network", "connect", "moment", "print_csv", "print_json", "print_samples", "seconds",
]  # fmt: skip

Network = Annotated[
    str | None,
    typer.Option(
        "--site",
        envvar="SISOCKDAQ_SITE",
        help="Name of a site on this machine, its site file, or a router as wss://host:8080/ws. "
        "Default: the only site that runs here.",
        metavar="NAME|PATH|URL",
    ),
]
Last = Annotated[
    str | None, typer.Option(help="How far back: 90s, 10m, 1h, 2d, or all.", metavar="DURATION", show_default=False)
]

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

_ROWS = 20
"""Samples that are shown to a person; a program asks for --csv or --json."""


def connect(site: str | None, *, control: bool = False) -> Client:
    """Connect as the commands do.

    A router by URL takes the secret from ``SISOCKDAQ_SECRET`` and the user from ``SISOCKDAQ_USER``; a certificate to
    trust from ``SISOCKDAQ_CERTIFICATE``.
    """
    from sisockdaq.client import Client, known_sites

    if site is None or site in known_sites():
        return Client(site)
    if site.startswith(("ws://", "wss://")):
        user = os.environ.get("SISOCKDAQ_USER", "control" if control else "consumer")
        secret = os.environ.get("SISOCKDAQ_SECRET")
        certificate = os.environ.get("SISOCKDAQ_CERTIFICATE")
        return Client(url=site, user=user, secret=secret, certificate=certificate)
    if "/" in site or Path(site).exists():
        return Client(state=_state_of(Path(site)))
    return Client(site)


def _state_of(path: Path) -> StateDirectory:
    if (path / "endpoint.json").exists():
        return StateDirectory(path)
    # Here, so that a machine that only reads needs none of what a site file can name.
    from sisockdaq.site import load_site

    return load_site(path).state


def seconds(text: str) -> float:
    """Read a duration, as ``90s``, ``1h`` or ``1.5``.

    Raises
    ------
    ConfigurationError
        With the units that there are.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", text)
    if found is None or (found[2] or "s") not in _UNITS:
        raise ConfigurationError(f'"{text}" is not a duration', remedy="write it as 90s, 10m, 1h, 2d or 1w")
    return float(found[1]) * _UNITS[found[2] or "s"]


def moment(text: str) -> float:
    """Read a time: UNIX seconds, ISO 8601 (local unless it says otherwise), ``now``, or ``-1h`` for an hour ago.

    Raises
    ------
    ConfigurationError
    """
    if text == "now":
        return 0.0
    if text.startswith("-"):
        return -seconds(text[1:])
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ConfigurationError(
            f'"{text}" is not a time', remedy="write it as 2026-05-01T12:00, as UNIX seconds, or as -1h"
        ) from None


def print_json(value: Any) -> None:
    """Print strict JSON on one line; arrays become lists, NaN becomes null."""
    sys.stdout.write(json.dumps(plain_values(value), allow_nan=False, default=str) + "\n")
    sys.stdout.flush()


def print_csv(data: Dataset) -> None:
    """Print all samples, one time a row; a field without a sample at a time is left empty."""
    writer = csv.writer(sys.stdout)
    names = list(data)
    writer.writerow(["time", *(f"{n} [{data[n].units}]" if data[n].units else n for n in names)])
    times = np.unique(np.concatenate([data[name].t for name in names]))
    columns = []
    for name in names:
        cells: list[Any] = [""] * len(times)
        for place, value in zip(np.searchsorted(times, data[name].t), data[name].values, strict=True):
            cells[place] = json.dumps(plain_values(value)) if np.ndim(value) else value
        columns.append(cells)
    writer.writerows(zip(times.tolist(), *columns, strict=True))


def print_samples(data: Dataset) -> None:
    """Print the newest samples of each field for a person."""
    for one in data.values():
        hidden = len(one) - _ROWS
        units = f" [{one.units}]" if one.units else ""
        typer.echo(f"{one.name}{units}: {len(one)} samples" + (f" from {', '.join(one.sources)}" if len(one) else ""))
        if hidden > 0:
            typer.echo(f"  … {hidden} earlier ones (--csv or --json gives all)")
        for t, value in zip(one.t[-_ROWS:].tolist(), one.values[-_ROWS:], strict=True):
            typer.echo(f"  {clock(t)}  {_value(value)}")
    for problem in data.problems:
        typer.echo(f"! {problem}", err=True)


def clock(t: float) -> str:
    """Return a UNIX time as local date and time with milliseconds."""
    whole, thousandths = divmod(round(t * 1000), 1000)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(whole)) + f".{thousandths:03d}"


def _value(value: Any) -> str:
    if np.ndim(value):
        array = np.asarray(value)
        shape = " × ".join(map(str, array.shape))
        return f"{shape} {array.dtype}, {np.nanmin(array):.6g} … {np.nanmax(array):.6g}" if array.size else shape
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)
