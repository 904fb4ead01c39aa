"""The guide for moving a sisock site says what is so: variables, options, types, compose services and site files."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from sisockdaq.cli.join import types
from sisockdaq.environment import NETWORK_VARIABLES, checked_options, option_variables
from sisockdaq.site import Site, installed_types, load_site

GUIDE = Path(__file__).parents[1] / "docs" / "how-to" / "move-a-sisock-site.md"

COMMON = {one.name for one in NETWORK_VARIABLES}

IMAGES = (
    "crossbar", "http", "g3-file-scanner", "weather-server", "sensors-server", "apex-weather-server",
    "data-feed-server", "radiometer-server", "g3-reader-server", "thermometry-server",
)  # fmt: skip
"""What the manual of sisock has, after ``sisock-``."""

_VARIABLE = re.compile(r"`([A-Z][A-Z0-9_]{3,})`")


def sections() -> dict[str, tuple[str | None, str]]:
    """Return the type and the text of each section by its heading."""
    parts = re.split(r"^##+ (.*)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        kind = re.search(r"→ `(\w+)`", heading)
        found[heading] = (kind[1] if kind else None, text)
    return found


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("Old", "") and not row[0].startswith("---")]


def blocks(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)


def options_of(kind: str) -> type[BaseModel]:
    for group in ("sisockdaq.nodes", "sisockdaq.gateways"):
        if kind in installed_types(group):
            model: type[BaseModel] = installed_types(group)[kind].load().Options
            return model
    raise AssertionError(f"the guide names {kind}, which is not installed")


KINDS = sorted({kind for kind, _ in sections().values() if kind})


def test_the_types_are_installed() -> None:
    assert set(KINDS) <= set(types())
    assert len(KINDS) == 7


@pytest.mark.parametrize("heading", [heading for heading, (_, text) in sections().items() if "| Old | New |" in text])
def test_each_old_variable_is_known(heading: str) -> None:
    kind, text = sections()[heading]
    known = {one.variable: one.option for one in option_variables(options_of(kind))} if kind else {}
    for row in rows(text):
        for variable in _VARIABLE.findall(row[0]):
            if row[1] == "gone" or "MariaDB's own" in row[2]:
                continue
            assert variable in COMMON or variable in known, f"{variable} in “{heading}”"
            option = re.search(r"option `(\w+)`", row[1])
            assert option is None or known.get(variable) == option[1]
        for option_name in re.findall(r"--set (\w+)=", " ".join(row)):
            assert kind is not None
            assert option_name in options_of(kind).model_fields


def test_no_variable_is_left_out() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in COMMON if f"`{name}`" not in text] == []
    for kind in KINDS:
        told = "".join(cell for _, (of, part) in sections().items() if of == kind for row in rows(part) for cell in row)
        missing = [one.variable for one in option_variables(options_of(kind)) if f"`{one.variable}`" not in told]
        assert missing == [], kind


def test_every_image_of_the_manual_has_its_place() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [image for image in IMAGES if f"/sisock-{image}:latest" not in text] == []


def services() -> dict[str, dict[str, Any]]:
    """Return the services that the guide ends with, merged as Compose merges them."""
    shared = next(block for _, text in sections().values() for block in blocks(text) if block.startswith("x-sisockdaq"))
    found: dict[str, dict[str, Any]] = {}
    for _, text in sections().values():
        for block in blocks(text):
            before, after, ours = block.partition("# after\n")
            if after:
                assert yaml.safe_load(before)
                made = yaml.safe_load(shared + ours)
                found.update({name: entry for name, entry in made.items() if not name.startswith("x-")})
    return found


@pytest.mark.parametrize("name", list(services()))
def test_the_services_can_be_started(name: str, tmp_path: Path) -> None:
    service = services()[name]
    command = service["command"]
    settings = dict(pair.split("=", 1) for flag, pair in pairwise(command) if flag == "--set")
    if command[0] == "join":
        model = options_of(command[1])
        environment = {key: str(value) for key, value in service["environment"].items()}
        known = COMMON | {one.variable for one in option_variables(model)}
        assert set(environment) <= known
        assert "WAMP_SECRET" in environment
        assert any("/app/.crossbar/server_cert.pem" in volume for volume in service["volumes"])
        checked_options(model, environment, settings)
    else:
        assert command[:4] in (["run", "router", "--site", "/site"], ["run", "hub", "--site", "/site"])
        sites(tmp_path, tuple(f"{key}={value}" for key, value in settings.items()))


def sites(folder: Path, overrides: tuple[str, ...] = ()) -> list[Site]:
    """Load each site file of the guide, with the options of all its parts."""
    texts = [block for _, text in sections().values() for block in blocks(text) if block.startswith("site:")]
    found = []
    for text in texts:
        (folder / "site.yml").write_text(text, encoding="utf-8")
        found.append(load_site(folder, check=None, overrides=overrides))
    return found


def test_the_site_files_are_right(tmp_path: Path) -> None:
    first, last = sites(tmp_path)
    for site in (first, last):
        assert (site.realm, site.base_uri) == ("test_realm", "org.simonsobservatory")
        assert site.router.ocs is not None
        assert site.router.ocs.port == 8001
    assert first.router.users["server"].role == "server"
    assert {entry.type for entry in [*last.nodes.values(), *last.gateways.values()]} == set(KINDS)
