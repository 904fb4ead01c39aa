"""The whole chain with processes: feeder, server, ``.chi`` files, plot; as commands, and as a part of a site."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.gateways.saxsdog import Saxsdog, cli
from sisockdaq.gateways.saxsdog.feeder import Feeder
from sisockdaq.gateways.saxsdog.leash import Leash, load_calibration

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.errors import ConfigurationError
from sisockdaq.gateway import GatewayHost
from sisockdaq.saxsdog.network import NetworkEntry, read_network, write_network
from sisockdaq.saxsdog.wire import Attachment
from sisockdaq.session import Credentials
from sisockdaq.testing import Network, wait_until
from tests.gateways.saxsdog.rig import (
    SECRET,
    LiteralClient,
    calibration,
    fit2d_mask,
    mask_attachment,
    serving,
    valid_pixels,
    write_picture,
)
from tests.saxsdog import literal

DEADLINE = 60.0


def test_from_the_feeder_to_the_plot(base: Path) -> None:
    feeder = Feeder([base], "tcp://127.0.0.1:*")
    feeder.start()
    try:
        with serving(base, strict=False, feeder=feeder.address, real=True) as service:
            ask = LiteralClient(service.address)
            conf = calibration(**{"Live-Filelisting": True})
            assert ask("new", {"calibration": conf}, mask_attachment(valid_pixels()))["result"] == "new queue"

            def processed(n: int) -> bool:
                feeder.publish_waiting(0)
                return int(ask("stat")["data"]["stat"]["images processed"]) >= n

            def first() -> bool:
                # Until the subscription is known, nothing is heard of what is told.
                write_picture(base / "run1" / "first.tif")
                return processed(1)

            wait_until(first, DEADLINE, "the first picture")
            pixels = write_picture(base / "run1" / "a.tif", seed=7)
            # A file that is whole only later is tried again.
            whole = (base / "run1" / "a.tif").read_bytes()
            (base / "run1" / "half.tif").write_bytes(whole[: len(whole) // 2])
            chi = base / "work" / "a.chi"
            wait_until(lambda: processed(2) and chi.is_file(), DEADLINE, "a.chi")
            lines = chi.read_text().splitlines()
            assert json.loads(lines[0])["Wavelength"] == conf["Wavelength"]
            expected = np.array(literal.radial(conf, conf["Masks"][0], valid_pixels(), pixels))
            assert int(lines[3]) == expected.shape[1]
            np.testing.assert_allclose(
                np.array([line.split() for line in lines[4 : 4 + int(lines[3])]], float).T, expected, rtol=1e-9
            )

            (base / "run1" / "half.tif").write_bytes(whole)
            wait_until(lambda: processed(3) and (base / "work" / "half.chi").is_file(), DEADLINE, "half.chi")
            reply = ask("plot")
            assert reply["result"] == "plot"
            assert Path(reply["data"]["filename"]).name in ("a", "half", "first")
            assert "Radial0" in ask("fileslist")["data"]["fileslist"]
            assert "a.chi" in (base / "results" / "filelist_run1.log").read_text()
            assert ask("abort")["result"] == "queue aborted"
    finally:
        feeder.close()


@contextmanager
def command(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the commands, as its script does, until the block ends."""
    code = f"from sisockdaq.gateways.saxsdog.cli import {name}; {name}()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def test_the_commands_of_a_person(base: Path, tmp_path: Path) -> None:
    network = tmp_path / "network"
    write_network(network, [NetworkEntry(Secret=SECRET)])  # type: ignore[call-arg]
    (tmp_path / "cal.json").write_text(json.dumps(calibration()))
    (tmp_path / "mask.msk").write_bytes(fit2d_mask(valid_pixels()))
    shared = ["--network", str(network), "--json", "-p", "0"]
    with (
        command("feeder", str(base), *shared) as feeder,
        command("server", str(base), "-f", said(feeder)["address"], "-w", *shared) as server,
    ):
        leash = Leash(said(server)["address"], SECRET)
        sent, masks = load_calibration(tmp_path / "cal.json")
        assert leash.do("new", {"calibration": sent}, masks)["result"] == "new queue"
        write_picture(base / "run1" / "a.tif")
        wait_until(lambda: leash.do("stat")["data"]["stat"]["images processed"], DEADLINE, "the picture")
        assert (base / "work" / "a.chi").is_file()
        assert said(feeder) == {"published": str(base / "run1" / "a.tif")}


def test_failed_pictures_are_named_to_who_asks_and_stay_out_of_what_old_clients_get(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With processes: a picture of another detector and a broken one, between good ones."""
    import fabio.edfimage

    with serving(base, real=True, workers=1) as service:
        leash = Leash(service.address, SECRET)
        mask = Attachment("mask.msk", fit2d_mask(valid_pixels()).decode("latin-1"))
        assert leash.do("new", {"calibration": calibration(Threads=1)}, [mask])["result"] == "new queue"
        write_picture(base / "run1" / "a.tif")
        fabio.edfimage.EdfImage(np.zeros((3, 4), np.int32)).write(str(base / "run1" / "b.edf"))
        fabio.edfimage.EdfImage(np.full((40, 31), np.nan, np.float32)).write(str(base / "run1" / "c.edf"))
        write_picture(base / "run1" / "d.tif")
        leash.do("readdir")

        def details() -> dict[str, Any]:
            return dict(leash.do("stat", {"details": True})["data"]["details"])

        wait_until(lambda: (details()["processed"], details()["failed"]) == (2, 2), DEADLINE, "all four")
        told = {Path(one["path"]).name: one["reason"] for one in details()["failures"]}
        assert "the image is 3 × 4, the calibration says 40 × 31" in told["b.edf"]
        assert "NaN or infinite" in told["c.edf"]
        assert leash.do("stat")["data"].keys() == {"stat"}
        network = tmp_path / "network"
        write_network(network, [NetworkEntry(Server=service.address, Secret=SECRET)])  # type: ignore[call-arg]
        cli.leash(["stat", "--network", str(network)])
        shown = capsys.readouterr().out
        assert "  failed: 2\n" in shown
        assert f"    {base / 'run1' / 'b.edf'}: the image is 3 × 4" in shown


def run_gateway(network: Network, **options: Any) -> GatewayHost:
    user = Credentials("consumer", network.state.secret("consumer"))

    def make() -> GatewayHost:
        given = {"port": 0, "feeder": "none", **options}
        host = GatewayHost(Saxsdog, "saxsdog", network.endpoint, user, given, state=network.state)
        host.start().addErrback(lambda failure: None)
        return host

    host = in_reactor(make)
    wait_until(lambda: host.gateway.joined, 15, "the gateway's login")
    return host


def test_in_a_site(network: Network, base: Path) -> None:
    host = run_gateway(network, directory=str(base))
    gateway: Saxsdog = host.gateway  # type: ignore[assignment]
    try:
        (entry,) = read_network(network.state.path / "saxsdog-network.json")
        leash = Leash(gateway.service.address, entry.Secret)
        conf = calibration()
        mask = Attachment("mask.msk", fit2d_mask(valid_pixels()).decode("latin-1"))
        assert leash.do("new", {"calibration": conf}, [mask])["result"] == "new queue"
        write_picture(base / "run1" / "a.tif")
        wait_until(lambda: "1 pictures" in gateway.about, DEADLINE, "the watched picture in what is shown")
        assert LiteralClient(gateway.service.address, "other")("abort")["result"] == "AuthenticationError"
        wait_until(lambda: "1 requests refused" in gateway.about, 10, "the refusal in what is shown")
    finally:
        in_reactor(host.stop, deadline=DEADLINE)
    assert not gateway.service.runs


@pytest.mark.parametrize(
    ("options", "text"), [({}, "which folder"), ({"directory": "/nowhere"}, "is no folder"), ({"port": -1}, "port")]
)
def test_options_are_checked(network: Network, options: dict[str, Any], text: str) -> None:
    ended: list[Any] = []

    def make() -> None:
        user = Credentials("consumer", network.state.secret("consumer"))
        host = GatewayHost(Saxsdog, "saxsdog", network.endpoint, user, {"port": 0, **options}, state=network.state)
        host.start().addBoth(ended.append)

    try:
        in_reactor(make)
    except ConfigurationError as error:
        assert text in str(error)  # noqa: PT017 - some mistakes are found before the start
        return
    wait_until(lambda: ended, 10, "the refusal")
    assert text in str(ended[0].value)
