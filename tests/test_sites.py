"""The example sites are whole: each can be read, and its compose file runs each of its parts, on localhost only."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from sisockdaq.site import load_site

SITES = Path(__file__).parents[1] / "sites"
OBSERVATORY = SITES / "observatory"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((OBSERVATORY / "docker-compose.yml").read_text())["services"])


@pytest.mark.parametrize("folder", sorted(path.parent for path in SITES.glob("*/site.yml")), ids=lambda path: path.name)
def test_every_site_is_right_and_called_as_its_folder(folder: Path) -> None:
    assert load_site(folder, check=None).site == folder.name


def test_the_compose_file_follows_the_specification() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    if not program.exists():
        pytest.skip("check-jsonschema is not installed here")
    file = OBSERVATORY / "docker-compose.yml"
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_part_is_a_service(services: dict[str, Any]) -> None:
    site = load_site(OBSERVATORY)
    parts = {service["command"][1] for service in services.values() if service.get("command", [""])[0] == "run"}
    assert parts == {"router", "hub", *site.nodes, *site.gateways}


def test_settings_of_the_services_are_settings_of_the_site(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAMP_SECRET", "as the old network has it")
    for service in services.values():
        command = service.get("command", [])
        sets = [command[i + 1].replace("$$", "$") for i, word in enumerate(command) if word == "--set"]
        assert load_site(OBSERVATORY, check=None, overrides=sets).site == "observatory"
        if "router.users.server.secret" in str(sets):
            assert load_site(OBSERVATORY, overrides=sets).user_secrets() == {"server": "as the old network has it"}


def test_the_g3_node_has_an_image_with_what_it_needs(services: dict[str, Any]) -> None:
    """The image's Python has a wheel of so3g, and the build argument names extras that exist."""
    project = tomllib.loads((SITES.parent / "pyproject.toml").read_text())["project"]
    dockerfile = (SITES.parent / "Dockerfile").read_text()
    extras = services["g3"]["build"]["args"]["EXTRAS"].split(",")
    assert {"g3", "mysql"} <= set(extras) <= set(project["optional-dependencies"])
    assert services["g3"]["image"] != services["router"]["image"]
    assert "[${EXTRAS}]" in dockerfile
    version = re.search(r"^FROM python:(3\.\d+)-", dockerfile, re.MULTILINE)
    assert version is not None
    needed = [Requirement(line) for extra in extras for line in project["optional-dependencies"][extra]]
    assert [one.name for one in needed if one.marker and not one.marker.evaluate({"python_version": version[1]})] == []


def test_all_ports_are_on_localhost(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_default(services: dict[str, Any]) -> None:
    settings = {**services["grafana"]["environment"], **services["router"]["environment"]}
    for name in ("GF_SECURITY_ADMIN_PASSWORD", "WAMP_SECRET"):
        assert ":?" in settings[name]
    for name in ("g3", "mariadb"):
        assert services[name]["profiles"] == ["g3"]


def test_grafana_finds_the_files_and_the_gateway(services: dict[str, Any]) -> None:
    grafana = services["grafana"]
    place, inside, _ = grafana["volumes"][0].split(":")
    assert (OBSERVATORY / place / "dashboards" / "sisockdaq.yaml").is_file()
    assert inside == "/etc/grafana/provisioning"
    host = grafana["environment"]["SISOCKDAQ_URL"].removeprefix("http://").partition(":")[0]
    assert host in services
    assert services[host]["command"][:2] == ["run", "grafana"]
    assert ":" in grafana["image"]  # a fixed version
