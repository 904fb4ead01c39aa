"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Plain", "Set", "SiteFile"]

SiteFile = Annotated[
    Path,
    typer.Option("--site", envvar="SISOCKDAQ_SITE", help="The site file, or the folder of a site.yml.", metavar="PATH"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Take KEY=VALUE over what the site file has, e.g. --set router.port=8081; may be repeated.",
        metavar="KEY=VALUE",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
Plain = Annotated[bool, typer.Option("--plain", help="One line for each change instead of a live table.")]
