"""Sites run for one purpose: ports of their own, a name of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sisockdaq.cli._trial import example_site, free_udp_ports, private_site
from sisockdaq.cli.acceptance import Plan
from sisockdaq.cli.packets import udp_targets
from sisockdaq.errors import ConfigurationError
from sisockdaq.site import load_site
from tests.command_line import run_command


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path / "state"))


def test_free_ports_differ() -> None:
    ports = free_udp_ports(72)
    assert len(set(ports)) == 72


def test_a_private_site_shares_nothing_with_its_original() -> None:
    original = load_site(example_site("demo"))
    site = private_site(example_site("demo"), "check")
    assert site.site == "demo-check"
    assert site.state.path != original.state.path
    assert site.router.port != original.router.port
    assert {port for _, port in udp_targets(site)}.isdisjoint(port for _, port in udp_targets(original))
    assert site.detector == original.detector


def test_targets_follow_the_receiver(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(
        "site: test\nnodes:\n  a: {type: integrator}\n"
        "  b: {type: detector_receiver, udp: [{port: 1, address: 0.0.0.0}, {port: 2, address: 10.0.0.1}]}\n"
    )
    site = load_site(tmp_path)
    assert udp_targets(site) == [("127.0.0.1", 1), ("10.0.0.1", 2)]
    assert udp_targets(site, host="192.168.0.5") == [("192.168.0.5", 1), ("192.168.0.5", 2)]
    with pytest.raises(ConfigurationError, match="a has the type integrator, which takes no UDP"):
        udp_targets(site, node="a")


@pytest.mark.parametrize("arguments", [("simulate", "--site"), ("demo", "--check", "--site"), ("demo", "--site")])
def test_a_site_whose_images_do_not_come_by_udp_is_told_so_at_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "site.yml").write_text(
        "site: test\nnodes:\n  stream: {type: stream_receiver, connect: ['tcp://127.0.0.1:31001']}\n"
        "  writer: {type: file_writer}\n"
    )
    done = run_command(*arguments, str(tmp_path / "site.yml"))
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "its images come from stream (stream_receiver)" in said
    assert "Traceback" not in said


def test_an_unknown_example_is_told() -> None:
    with pytest.raises(ConfigurationError, match="example site nowhere"):
        example_site("nowhere")


def test_a_plan_says_what_to_send(tmp_path: Path) -> None:
    assert Plan(5, 100.0).arguments() == ["simulate", "--frames", "5", "--rate", "100"]
    assert Plan(1, 2.0, tmp_path).arguments() == ["replay", str(tmp_path), "--rate", "2"]
