"""The site file's settings of the router: users, certificate, OCS; each mistake with its place and remedy."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sisockdaq.cli.table import _head, row
from sisockdaq.errors import AuthenticationFailed, ConfigurationError, PortTaken
from sisockdaq.router import RouterPlan, free_port, require_free_ports, write_router_config
from sisockdaq.router._certificate import ensure_certificate
from sisockdaq.session import Credentials, site_endpoint
from sisockdaq.site import Site, _site, load_site
from sisockdaq.supervisor import PartStatus
from sisockdaq.testing import Caller, wait_until
from tests.test_site import problems, written

EXISTING = """\
site: old
realm: test_realm
base_uri: org.simonsobservatory
router:
  certificate: .crossbar/server_cert.pem
  key: .crossbar/server_key.pem
  users:
    server: {role: server, secret: "${OLD_SECRET}"}
    viewer: {role: consumer}
  ocs: {port: 8001, full_rights: true}
nodes:
  camera: {type: integrator}
gateways:
  grafana: {}
  std_daq: {}
"""


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("OLD_SECRET", raising=False)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    ensure_certificate(tmp_path / ".crossbar")
    return load_site(written(tmp_path, EXISTING))


def users_of(config: Path) -> dict[str, dict[str, str]]:
    worker = json.loads(config.read_text())["workers"][0]
    return dict(worker["transports"][1]["paths"]["ws"]["auth"]["wampcra"]["users"])


def test_users_gateways_and_certificate_reach_the_router(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = dict(_site.installed_types())  # any group: what counts is the name in it
    monkeypatch.setattr(
        _site, "installed_types", lambda group: {"std_daq": control} if group == _site.CONTROL_GATEWAYS else {}
    )
    monkeypatch.setenv("OLD_SECRET", "a known secret")
    config = write_router_config(site, site.state)
    users = users_of(config)
    assert {name: entry["role"] for name, entry in users.items()} == {
        "server": "server",
        "viewer": "consumer",
        "grafana": "consumer",
        "std_daq": "control",
        "camera": "node_camera",
        "hub": "hub",
        "consumer": "consumer",
        "control": "control",
    }
    assert users["server"]["secret"] == "a known secret"
    assert users["viewer"]["secret"] == site.state.secret("viewer")  # made, and kept where secrets are kept
    assert users["grafana"]["secret"] == site.state.secret("grafana")
    assert "a known secret" not in (site.state.path / "secrets.json").read_text()
    endpoint = json.loads(config.read_text())["workers"][0]["transports"][1]["endpoint"]
    assert endpoint["tls"]["certificate"] == str(tmp_path / ".crossbar/server_cert.pem")
    assert site.state.read_endpoint()["certificate"] == str(tmp_path / ".crossbar/server_cert.pem")
    assert site_endpoint(site).certificate == tmp_path / ".crossbar/server_cert.pem"
    assert not (site.state.tls / "server_cert.pem").exists()


def test_an_unset_variable_is_named_with_its_line(site: Site) -> None:
    with pytest.raises(ConfigurationError, match=r"site\.yml, line 8: router\.users\.server\.secret: .*OLD_SECRET"):
        write_router_config(site, site.state)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("router: {certificate: c.pem}", "line 2: router: certificate stands without key"),
        ("router: {key: k.pem}", "line 2: router: key stands without certificate"),
        ("router: {users: {old: {role: servr}}}", 'line 2: router.users.old.role: "servr" is not a role; did you mean'),
        ("router: {users: {old: {}}}", "line 2: router.users.old.role: is missing"),
        ("router: {users: {hub: {role: server}}}", 'line 2: router.users: "hub" is a name that every site uses itself'),
        ("router: {users: {'a b': {role: server}}}", 'line 2: router.users: "a b" is no name for a user'),
        ("router: {users: {a: {role: server, secret: hush}}}", "line 2: router.users.a.secret: a secret does not"),
        ("router: {ocs: {port: 8080}}", "line 2: router: port and ocs.port are both 8080"),
        ("router: {ocs: {address_root: sisockdaq}}", 'line 2: router: ocs.address_root "sisockdaq" overlaps'),
        ("base_uri: org.so\nrouter: {ocs: {address_root: org}}", 'line 3: router: ocs.address_root "org" overlaps'),
        ("router: {ocs: {address_root: wamp}}", 'line 2: router: ocs.address_root "wamp" overlaps'),
        ("router: {ocs: {adress: a}}", 'line 2: router.ocs.adress: unknown key; did you mean "address_root"?'),
        (
            "router: {users: {camera: {role: server}}}\nnodes: {camera: {type: integrator}}",
            'line 3: nodes: "camera" is a user under router.users already',
        ),
        ("nodes: {a: {type: integrator}}\ngateways: {a: {type: b}}", 'line 3: gateways: "a" is the name of a node'),
    ],
)
def test_each_mistake_has_line_key_and_reason(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, f"site: test\n{text}\n")
    assert len(found) == 1
    assert found[0].startswith(f"site.yml, {expected}")


def test_a_secret_in_the_file_is_not_repeated(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "site: test\nrouter: {users: {a: {role: server, secret: hush-hush}}}\n")
    assert "hush-hush" not in found


def test_a_certificate_that_cannot_be_used_is_told_before_the_router_starts(site: Site, tmp_path: Path) -> None:
    certificate, key = tmp_path / ".crossbar/server_cert.pem", tmp_path / ".crossbar/server_key.pem"
    good = key.read_bytes()
    key.write_bytes(_another_key())
    with pytest.raises(ConfigurationError, match=r"line 5: router\.certificate: .*key\.pem does not belong to"):
        site.own_certificate()
    key.write_bytes(_another_key(password=b"x"))
    with pytest.raises(ConfigurationError, match="no usable private key"):
        site.own_certificate()
    key.write_bytes(good)
    assert site.own_certificate() == (certificate, key)
    certificate.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="is no certificate in PEM form"):
        site.own_certificate()
    key.unlink()
    with pytest.raises(ConfigurationError, match=r"server_key\.pem: No such file"):
        site.own_certificate()


def _another_key(password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_a_taken_port_for_ocs_is_named_by_its_key(site: Site) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        ocs = replace(RouterPlan.of(site).ocs, port=holder.getsockname()[1])  # type: ignore[type-var]
        with pytest.raises(PortTaken, match=r"set another router\.ocs\.port in the site file"):
            require_free_ports(replace(RouterPlan.of(site), port=free_port(), ocs=ocs))


def test_full_rights_are_shown_in_the_table(site: Site) -> None:
    detail = row(site, PartStatus("router", "crossbar", "up"), {})[3]
    assert detail == "wss://127.0.0.1:8080/ws; full rights without a login at port 8001"
    assert "warning: port 8001 gives full rights without a login" in _head(site)


def test_the_router_of_an_existing_network_starts_and_says_what_it_lets_in(site: Site, tmp_path: Path) -> None:
    sets = [f"router.port={free_port()}", f"router.ocs.port={free_port()}"]
    here = load_site(site.file, overrides=sets)
    command = [sys.executable, "-m", "sisockdaq.cli", "run", *here.arguments, "router"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        router = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "OLD_SECRET": "a known secret"}
        )
    try:
        endpoint = replace(site_endpoint(here), socket=None)
        wait_until(lambda: _listens(endpoint.url) or router.poll() is not None, 60.0, "the router")
        Caller(endpoint, Credentials("server", "a known secret")).close()
        Caller(endpoint, Credentials("viewer", here.state.secret("viewer"))).close()
        with pytest.raises(AuthenticationFailed):
            Caller(endpoint, Credentials("server", "another"))
        assert log.read_text().count("gives full rights without a login") == 1
        assert "a known secret" not in log.read_text()
    finally:
        router.terminate()
        router.wait(20)


def _listens(url: str) -> bool:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        ssl.get_server_certificate((str(parts.hostname), int(parts.port or 0)), timeout=5)
    except OSError:
        return False
    return True
