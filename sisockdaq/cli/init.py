"""``sisockdaq init``: a new site to begin with, that runs as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from sisockdaq.cli._options import AsJson
from sisockdaq.errors import ConfigurationError
from sisockdaq.site import load_site

__all__ = ["add_commands", "new_site"]

SITE = """\
# {name}: edit and run `sisockdaq up {folder}`. `sisockdaq run --help` and docs/reference/site.md tell the rest.
site: {name}

# router: {{host: 127.0.0.1, port: 8080}}

detector:
  model: jungfrau
  modules: 1
  geometry: detector.poni
  # mask: mask.edf

nodes:
  receiver:   {{type: detector_receiver, udp: [{{port: 50000}}]}}
  integrator: {{type: integrator, bins: 1000, unit: q_nm^-1}}
  writer:     {{type: file_writer, directory: runs}}
  archive:    {{type: hdf5_archive, directory: runs}}
"""

PONI = """\
# Replace by the calibration of your detector (pyFAI writes this format).
poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 7.5e-05, "pixel2": 7.5e-05, "max_shape": [512, 1024], "orientation": 3}
Distance: 0.1
Poni1: 0.0192
Poni2: 0.0384
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 1e-10
"""


def add_commands(app: typer.Typer) -> None:
    """Add ``init``."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new site; made where it is missing.")],
    name: Annotated[str | None, typer.Option(help="Name of the site. Default: the folder's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a site to begin with: site.yml with one detector, an integrator, a writer and an archive.

    It runs as it is, with a simulated detector: `sisockdaq up FOLDER`, and in a second terminal
    `sisockdaq simulate --site FOLDER`. Secrets and certificates are made at the first start, outside this folder.
    """
    files = new_site(folder, name or re.sub(r"[^A-Za-z0-9_-]+", "-", folder.absolute().name).strip("-"))
    if as_json:
        typer.echo(json.dumps([str(path) for path in files]))
        return
    typer.echo("\n".join(f"wrote {path}" for path in files))
    typer.echo(f"next: sisockdaq up {folder}, and in a second terminal: sisockdaq simulate --site {folder}")


def new_site(folder: Path, name: str) -> list[Path]:
    """Write the files of a new site; return their paths.

    Raises
    ------
    ConfigurationError
        The folder has one of them already, cannot be written, or the name is none.
    """
    texts = {"site.yml": SITE.format(name=name, folder=folder), "detector.poni": PONI}
    paths = [folder / file for file in texts]
    for path in paths:
        if path.exists():
            raise ConfigurationError(f"{path} is there already", remedy="choose another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            path.write_text(texts[path.name], encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}") from None
    try:
        load_site(folder)
    except ConfigurationError:
        for path in paths:
            path.unlink()
        raise
    return paths
