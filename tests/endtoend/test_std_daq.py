"""std-daq's own client against a gateway that is a part of a site: supervised, killed, and followed by everybody."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from std_daq_client import StdDaqAdminException, StdDaqClient

from sisockdaq.cli.packets import udp_targets
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.simulator import Simulation, simulate
from sisockdaq.errors import FileUnreadable
from sisockdaq.testing.waiting import wait_until
from tests.endtoend.house import DEADLINE, House, images_of, wait_for


class Daq(StdDaqClient):
    """The client of PyPI, and what its users write around it."""

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """Poll until the acquisition is so; return the status."""

        def reached() -> dict[str, Any] | None:
            status = self.get_status()
            acquisition = status["acquisition"]
            seen = {"state": acquisition["state"], "writer": status["state"], **acquisition["stats"]}
            return status if all(seen[key] == value for key, value in wanted.items()) else None

        return dict(wait_until(reached, DEADLINE, f"{wanted}"))


@pytest.fixture
def daq(house: House) -> Iterator[Daq]:
    port = house.trial.site.gateways["std_daq"].options["port"]
    client = Daq(url_base=f"http://127.0.0.1:{port}")
    wait_until(lambda: answers(client), DEADLINE, "the gateway to be on the network")
    yield client
    client.stop_writer()


def answers(client: StdDaqClient) -> bool:
    with suppress(OSError, StdDaqAdminException, RuntimeError):
        return client.get_status()["state"] == "READY"
    return False


def test_the_gateway_is_a_part_of_the_site_and_comes_back(house: House, daq: Daq) -> None:
    """A client that waits in a synchronous write loses its answer with the gateway, but no image."""
    assert house.part("std_daq").state == "up"
    path = str(house.trial.site.resolve_output("runs") / "std_daq.h5")
    wait_for(lambda: house.client.call_control("writer", "status")["source"], "the writer's source")
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(daq.start_writer_sync, {"output_file": path, "n_images": 30, "run_id": "by-std-daq"})
        daq.wait(state="WAITING_IMAGES")
        first = house.next_frame
        house.send(20).wait()
        daq.wait(n_write_completed=20)
        killed = house.signal("std_daq", signal.SIGKILL)
        with pytest.raises((OSError, RuntimeError)):
            writing.result(DEADLINE)
        house.wait_back("std_daq", killed)
        wait_until(lambda: reachable(daq), DEADLINE, "the gateway to answer again")
        assert daq.get_status()["acquisition"]["info"]["run_id"] == "by-std-daq"
        house.send(10).wait()
        ended = daq.wait(state="FINISHED", n_write_completed=30)
    assert ended["acquisition"]["info"]["output_file"] == path
    images = images_of(path)
    assert len(images) == 30
    for index, image in enumerate(images):
        assert (image == house.simulation.image(first + index)).all()
    assert daq.get_logs(1) == [ended["acquisition"]]


def reachable(client: StdDaqClient) -> bool:
    with suppress(OSError, StdDaqAdminException, RuntimeError):
        return client.get_status()["state"] != "UNKNOWN"
    return False


def test_writer_and_integrator_follow_a_new_configuration(house: House, daq: Daq) -> None:
    """Shape and place of the modules change while all run; every frame after it is written, integrated and counted."""
    before = daq.get_config()
    height, width = before["image_pixel_height"], before["image_pixel_width"]
    moved = {key: [x0, y0 + 6, x1, y1 + 6] for key, (x0, y0, x1, y1) in before["module_positions"].items()}
    try:
        daq.set_config({"image_pixel_height": height + 10, "module_positions": moved})
        check_configured(house, daq, (height + 10, width), moved)
    finally:
        daq.set_config({key: before[key] for key in ("image_pixel_height", "module_positions")})
        wait_for(lambda: house.client.call_control("writer", "status")["source"], "the writer's source")
    check_configured(house, daq, (height, width), before["module_positions"])


def test_files_of_one_name_in_two_folders_are_told_apart(house: House, daq: Daq) -> None:
    runs = house.trial.site.resolve_output("runs")
    wait_for(lambda: house.client.call_control("writer", "status")["source"], "the writer's source")
    firsts = {}
    for place in ("a", "b"):
        (runs / place).mkdir()
        path = runs / place / "twice.h5"
        daq.start_writer_async({"output_file": str(path), "n_images": 3, "run_id": f"twice-{place}"})
        daq.wait(state="WAITING_IMAGES")
        firsts[place] = house.next_frame
        house.send(3).wait()
        daq.wait(state="FINISHED", n_write_completed=3)
    wait_for(lambda: sum(one["acquisition"] == "twice" for one in house.client.acquisitions()) == 2, "both files")

    def ask(identity: str, **query: str) -> requests.Response:
        return requests.get(f"{daq.url_base}/file/{identity}/1", {"format": "npy", **query}, timeout=DEADLINE)

    for place, first in firsts.items():
        expected = house.simulation.image(first + 1)
        for answer in (ask(f"twice-{place}"), ask("twice", folder=str(runs / place))):
            assert (np.load(BytesIO(answer.content)) == expected).all()
        assert (house.client.image("receiver::image", "twice", 1, folder=str(runs / place)).values == expected).all()
    answer = ask("twice").json()
    assert (answer["status"], "in several folders" in answer["message"]) == ("error", True)
    with pytest.raises(FileUnreadable, match="in 2 folders"):
        house.client.image("receiver::image", "twice", 1)
    assert "no archive has" in ask("twice", folder="/nowhere").json()["message"]


def check_configured(house: House, daq: Daq, shape: tuple[int, int], positions: dict[str, list[int]]) -> None:
    detector = DetectorOptions.model_validate(
        {
            **house.detector.model_dump(exclude={"module_positions", "image_size"}),
            "module_positions": positions,
            "image_size": shape,
        }
    )
    simulation = Simulation(detector, seed=21)
    run = house.start(12, "configured")
    first = house.next_frame
    house.next_frame += 12
    simulate(detector, udp_targets(house.trial.site), frames=12, rate=100, first_frame=first, simulation=simulation)
    run.wait(DEADLINE, progress=False)
    ledger = run.ledger
    assert ledger.balance() == []
    assert (ledger.frames_expected, ledger.frames_complete) == (12, 12)
    assert ledger.reported("frames_written") == ledger.reported("frames_integrated") == 12
    images = images_of(run.status()["master"])
    assert images.shape == (12, *shape)
    for index, image in enumerate(images):
        assert (image == simulation.image(first + index)).all()
    house.archived(run, 12)
    curves = house.client.get("integrator::total", start=run.status()["started"])["integrator::total"]
    expected = [float(image[image != np.iinfo(image.dtype).max].sum(dtype=np.uint64)) for image in images]
    assert curves.values.tolist()[-12:] == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write as another user")
def test_files_are_of_the_user_that_the_client_names(house: House, daq: Daq, open_folder: Path) -> None:
    user = pwd.getpwnam("nobody")
    theirs = open_folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, user.pw_uid, user.pw_gid)
    theirs.chmod(0o750)
    private = open_folder / "private"
    private.mkdir(mode=0o755)
    wait_for(lambda: house.client.call_control("writer", "status")["source"], "the writer's source")
    try:
        assert daq.set_config({"writer_user_id": user.pw_uid})["writer_user_id"] == user.pw_uid
        with pytest.raises(StdDaqAdminException, match=f"not writable for user {user.pw_uid}"):
            daq.start_writer_async({"output_file": str(private / "run.h5"), "n_images": 1})
        path = theirs / "run.h5"
        daq.start_writer_async({"output_file": str(path), "n_images": 30, "raw": "beside"})
        daq.wait(state="WAITING_IMAGES")
        house.send(30).wait()
        daq.wait(state="FINISHED", n_write_completed=30)
    finally:
        daq.set_config({"writer_user_id": -1})
    made = sorted(each for each in theirs.rglob("*"))
    assert {"run.h5", "run_data_000001.h5", "run_data_000002.h5", "run_raw"} <= {each.name for each in made}
    assert {(each.name, each.stat().st_uid) for each in made} == {(each.name, user.pw_uid) for each in made}
    assert len(images_of(path)) == 30
