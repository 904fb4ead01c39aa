"""Every call of std-daq's own client, and every error a user can make, before fake nodes."""

from __future__ import annotations

import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from std_daq_client import StdDaqAdminException

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.testing import Network, wait_until
from tests.gateways.grafana.rig import Reader
from tests.gateways.std_daq.rig import Rig, rig, run_gateway

REQUEST: dict[str, Any] = {"output_file": "/data/run.h5", "n_images": 3}


def test_before_the_first_acquisition_all_is_null_but_there(std_daq: Rig) -> None:
    status = std_daq.client.get_status()
    assert status["state"] == "READY"
    assert status["acquisition"] == {
        "info": {"n_images": None, "output_file": None, "run_id": None},
        "message": None,
        "state": None,
        "stats": {"n_write_completed": None, "n_write_requested": None, "start_time": None, "stop_time": None},
    }
    assert std_daq.client.get_logs(5) == []


def test_an_asynchronous_write_is_followed_to_its_end(std_daq: Rig) -> None:
    begun = std_daq.client.start_writer_async({**REQUEST, "run_id": "20230526_113713.793"})
    assert begun["state"] == "WRITING"
    assert begun["acquisition"]["info"] == {**REQUEST, "run_id": "20230526_113713.793"}
    assert begun["acquisition"]["state"] == "WAITING_IMAGES"
    std_daq.writer.write(3)
    assert std_daq.client.get_status()["acquisition"]["stats"]["n_write_completed"] == 3
    std_daq.writer.end()
    ended = std_daq.client.get_status()
    assert (ended["state"], ended["acquisition"]["state"]) == ("READY", "FINISHED")
    assert ended["acquisition"]["message"] == "Completed."
    assert std_daq.client.get_logs(1)[0]["info"]["run_id"] == "20230526_113713.793"


def test_a_run_id_is_the_time_when_none_is_given(std_daq: Rig) -> None:
    before = time.time_ns()
    info = std_daq.client.start_writer_async(REQUEST)["acquisition"]["info"]
    assert before <= info["run_id"] <= time.time_ns()
    assert std_daq.writer.asked == [{"frames": 3, "output_file": "/data/run.h5", "run_id": info["run_id"]}]


def test_a_synchronous_write_answers_at_the_end_of_the_acquisition(std_daq: Rig) -> None:
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(std_daq.client.start_writer_sync, REQUEST)
        wait_until(lambda: std_daq.writer.busy, 5, "the start")
        with pytest.raises(StdDaqAdminException, match="run is under way"):
            std_daq.client.start_writer_sync(REQUEST)
        assert not writing.done()
        std_daq.writer.write(3)
        std_daq.writer.end()
        ended = writing.result(5)
    assert (ended["state"], ended["acquisition"]["state"]) == ("READY", "FINISHED")
    assert ended["acquisition"]["stats"]["n_write_completed"] == 3


def test_a_synchronous_write_has_no_limit_of_time(std_daq: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is timed in the gateway, the connection's silence included, is made shorter than the acquisition."""
    monkeypatch.setattr("sisockdaq.gateways.std_daq.daq.LOST_AFTER", 0.5)
    monkeypatch.setattr("sisockdaq.gateways.std_daq.daq.STOP_WAIT", 0.2)
    std_daq.gateway._port.factory.timeOut = 0.3
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(std_daq.client.start_writer_sync, REQUEST)
        wait_until(lambda: std_daq.writer.busy, 5, "the start")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 2.0, 5, "a while")
        assert not writing.done()
        std_daq.writer.end()
        assert writing.result(5)["acquisition"]["message"] == "Completed."


def test_a_failed_acquisition_is_told_and_logged(std_daq: Rig) -> None:
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(std_daq.client.start_writer_sync, REQUEST)
        wait_until(lambda: std_daq.writer.busy, 5, "the start")
        std_daq.writer.end("ERROR: the disk is full", "FAILED")
        ended = writing.result(5)
    assert ended["acquisition"]["state"] == "FAILED"
    (logged,) = std_daq.client.get_logs(10)
    assert (logged["state"], logged["message"]) == ("FAILED", "ERROR: the disk is full")


def test_a_writer_that_was_restarted_meanwhile_is_asked_for_its_log(std_daq: Rig) -> None:
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(std_daq.client.start_writer_sync, REQUEST)
        wait_until(lambda: std_daq.writer.busy, 5, "the start")
        std_daq.writer.end("Interrupted.")
        std_daq.writer.forget()
        assert writing.result(5)["acquisition"]["message"] == "Interrupted."


def test_an_acquisition_that_nobody_knows_any_more_ends_the_wait(std_daq: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.gateways.std_daq.daq.LOST_AFTER", 0.5)
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(std_daq.client.start_writer_sync, REQUEST)
        wait_until(lambda: std_daq.writer.busy, 5, "the start")
        std_daq.writer.forget()
        with pytest.raises(StdDaqAdminException, match=r"has not told of the acquisition for 0\.5 s"):
            writing.result(10)


def test_a_client_that_goes_ends_its_wait_and_not_the_acquisition(std_daq: Rig) -> None:
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(std_daq.url + "/writer/write_sync", json=REQUEST, timeout=1.0)
    wait_until(lambda: not std_daq.gateway.daq._waiters, 5, "the wait to end")
    assert std_daq.client.get_status()["state"] == "WRITING"
    assert std_daq.client.stop_writer()["state"] == "READY"


def test_stop_may_be_called_at_any_time(std_daq: Rig) -> None:
    assert std_daq.client.stop_writer()["acquisition"]["state"] is None
    std_daq.client.start_writer_async(REQUEST)
    stopped = std_daq.client.stop_writer()
    assert (stopped["state"], stopped["acquisition"]["message"]) == ("READY", "Interrupted.")
    assert std_daq.client.stop_writer() == stopped


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"n_images": 1}, "output_file is missing"),
        ({"output_file": "/x/y.h5"}, "n_images is missing"),
        ({"output_file": "/x/y.h5", "n_images": 0}, "n_images: .*greater than or equal to 1"),
        ({"output_file": "/x/y.h5", "n_images": True}, "n_images: true is not a number"),
        ({"output_file": "/x/y.h5", "n_images": "many"}, "n_images: .*valid integer"),
        ({"output_file": "y.h5", "n_images": 1}, '"y.h5" is not absolute'),
        ({"output_file": "/x/../y.h5", "n_images": 1}, "without . or .."),
        ({"output_file": "/x/", "n_images": 1}, "must name a file"),
        ({"output_file": "/x/\x00.h5", "n_images": 1}, "cannot be printed"),
        ({"output_file": 7, "n_images": 1}, "output_file: .*valid string"),
        ({"output_file": "/x/y.h5", "n_images": 1, "run_id": [1]}, "run_id must be a number .* or a text"),
        ({"output_file": "/x/y.h5", "n_images": 1, "run_id": -1}, "run_id must be"),
        ([1], "not a JSON object"),
        (b"{", "not JSON"),
        ({"output_file": "/forbidden/y.h5", "n_images": 1}, "cannot start x: /forbidden is not writable; the disk is"),
    ],
)
def test_a_wrong_request_is_told_every_reason(std_daq: Rig, body: Any, reason: str) -> None:
    for call in ("async", "sync"):
        message = std_daq.error("POST", f"/writer/write_{call}", body)
        assert re.search(reason, message), message


def test_all_mistakes_are_told_at_once_and_unknown_keys_named(std_daq: Rig) -> None:
    message = std_daq.error("POST", "/writer/write_async", {"output_file": "y.h5", "n_images": 0})
    assert "output_file" in message
    assert "n_images" in message
    answer = std_daq.http.post("/writer/write_async", {**REQUEST, "n_frames": 4})
    assert answer["message"] == "Writing started. Not used: n_frames."


def test_the_configuration_is_merged(std_daq: Rig) -> None:
    whole = std_daq.client.get_config()
    assert whole["writer_user_id"] == -1
    assert std_daq.client.set_config({"bit_depth": 32}) == {**whole, "bit_depth": 32}
    assert std_daq.receiver.asked == [{"bit_depth": 32}]
    assert std_daq.client.set_config(std_daq.client.get_config())["bit_depth"] == 32
    assert len(std_daq.receiver.asked) == 1  # nothing has changed
    assert std_daq.client.set_config({"writer_user_id": 12345})["writer_user_id"] == 12345
    std_daq.client.start_writer_async(REQUEST)
    assert std_daq.writer.asked[-1]["user_id"] == 12345
    assert std_daq.writer.user == 12345
    assert std_daq.client.set_config({"writer_user_id": 0})["writer_user_id"] == 0
    assert std_daq.writer.user is None


def test_a_wrong_configuration_changes_nothing(std_daq: Rig) -> None:
    before, deployed = std_daq.client.get_config(), std_daq.client.get_deployment_status()
    with pytest.raises(StdDaqAdminException, match="bit_depth 12 is not one of 16, 32"):
        std_daq.client.set_config({"bit_depth": 12, "writer_user_id": 5})
    with pytest.raises(StdDaqAdminException, match="no user 666"):
        std_daq.client.set_config({"bit_depth": 32, "writer_user_id": 666})
    with pytest.raises(StdDaqAdminException, match="colour is not known"):
        std_daq.client.set_config({"colour": "red"})
    with pytest.raises(StdDaqAdminException, match=r"module_positions\.0: .*at least 4 items"):
        std_daq.client.set_config({"module_positions": {"0": [1, 2]}})
    assert std_daq.client.get_config() == before
    assert std_daq.writer.user is None
    assert std_daq.client.get_deployment_status() == deployed


def test_a_deployment_is_followed(std_daq: Rig) -> None:
    std_daq.client.get_config()
    first = std_daq.client.get_deployment_status()
    assert (first["status"], first["message"]) == ("SUCCESS", "Deployment successful")
    std_daq.receiver.hang.clear()
    with ThreadPoolExecutor() as pool:
        setting = pool.submit(std_daq.client.set_config, {"bit_depth": 32})
        running = wait_until(
            lambda: (found := std_daq.client.get_deployment_status())["status"] == "RUNNING" and found, 5, "running"
        )
        assert running["message"] == "Waiting for servers..."
        assert running["servers"] == {"std_daq_receiver": "Deploying", "std_daq_writer": "Done"}
        std_daq.receiver.hang.set()
        setting.result(5)
    last = std_daq.client.get_deployment_status()
    assert last["status"] == "SUCCESS"
    assert set(last["servers"].values()) == {"Done"}
    assert last["config_id"] == std_daq.http.get("/daq/config")["config_id"] > first["config_id"]
    assert last["stats"]["start_time"] <= last["stats"]["stop_time"]


def test_a_deployment_that_hangs_is_told(std_daq: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.gateways.std_daq.config.APPLYING", 0.5)
    std_daq.receiver.hang.clear()
    with pytest.raises(StdDaqAdminException, match="std_daq_receiver"):
        std_daq.client.set_config({"bit_depth": 32})
    failed = std_daq.client.get_deployment_status()
    assert failed["status"] == "ERROR"
    assert "std_daq_receiver" in failed["message"]
    assert failed["servers"]["std_daq_writer"] == "Done"
    std_daq.receiver.hang.set()
    assert std_daq.client.set_config({"bit_depth": 16})["bit_depth"] == 16
    assert std_daq.client.get_deployment_status()["status"] == "SUCCESS"


def test_without_a_receiver_there_is_no_configuration(network: Network) -> None:
    with rig(network, receiver="nobody") as lonely:
        deployment = lonely.client.get_deployment_status()
        assert (deployment["status"], deployment["message"]) == ("UNKNOWN", "No config available")
        with pytest.raises(StdDaqAdminException, match="nobody"):
            lonely.client.get_config()


def test_the_users_choice_and_the_id_outlive_the_gateway(network: Network) -> None:
    with rig(network) as one:
        one.client.set_config({"writer_user_id": 77})
        known = one.http.get("/daq/config")
        again = run_gateway(network, "std_daq", writer="std_daq_writer", receiver="std_daq_receiver")
        try:
            assert Reader(again.gateway.port).get("/daq/config") == known  # type: ignore[attr-defined]
        finally:
            in_reactor(again.stop)


def test_rates_are_renewed_every_second_idle_ones_too(std_daq: Rig) -> None:
    idle = {"bytes_per_second": 0.0, "images_per_second": 0.0}
    assert std_daq.client.get_stats() == {"detector": idle, "writer": idle}
    std_daq.client.start_writer_async(REQUEST)

    def growing() -> Any:
        std_daq.receiver.frames += 10
        std_daq.receiver.bytes += 10_000
        std_daq.writer.write(std_daq.receiver.frames)
        found = std_daq.client.get_stats()
        return found if min(found[one]["images_per_second"] for one in found) > 0 else None

    found = wait_until(growing, 10, "rates")
    assert found["detector"]["bytes_per_second"] == pytest.approx(1000 * found["detector"]["images_per_second"])
    wait_until(lambda: std_daq.client.get_stats() == {"detector": idle, "writer": idle}, 10, "idle rates")


def test_wrong_numbers_paths_and_methods(std_daq: Rig) -> None:
    assert "must be a number" in std_daq.error("GET", "/daq/logs/-1")
    assert "must be a number" in std_daq.error("GET", "/daq/logs/all")
    assert std_daq.client.get_logs(0) == []
    assert "no archive has" in std_daq.error("GET", "/file/nothing/0")
    assert "format=gif" in std_daq.error("GET", "/file/nothing/0?format=gif")
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/writer/stop", 405),
        ("DELETE", "/daq/config", 405),
    ):
        answer = std_daq.http.ask(method, path)
        assert (answer.status, answer.json["status"]) == (status, "error")
    assert std_daq.http.ask("POST", "/daq/config", b"x" * (2**20 + 1)).status == 413


def test_pages_of_other_origins_change_nothing(std_daq: Rig) -> None:
    answer = std_daq.http.ask("POST", "/writer/write_async", REQUEST, origin="https://elsewhere.example")
    assert (answer.status, answer.json["status"]) == (403, "error")
    assert std_daq.http.ask("POST", "/writer/stop", {}, origin="https://elsewhere.example").status == 403
    assert std_daq.http.ask("POST", "/writer/stop", {}, origin="http://localhost:8000").status == 200
    assert std_daq.writer.asked == []


def test_without_a_writer_the_state_is_unknown_and_the_reason_told(network: Network) -> None:
    with rig(network, writer="nobody") as lonely:
        status = lonely.client.get_status()
        assert status["state"] == "UNKNOWN"
        assert "nobody" in status["acquisition"]["message"]
        with pytest.raises(StdDaqAdminException, match="nobody"):
            lonely.client.start_writer_async(REQUEST)
        with pytest.raises(StdDaqAdminException, match="nobody"):
            lonely.client.stop_writer()


def test_simulation_is_not_there_without_a_detector(std_daq: Rig) -> None:
    assert std_daq.http.get("/simulation/status")["simulation"]["state"] == "UNAVAILABLE"
    assert "no detector to simulate" in std_daq.error("POST", "/simulation/start", {})
    assert std_daq.http.post("/simulation/stop", {})["status"] == "ok"


def test_many_clients_at_once(std_daq: Rig) -> None:
    threads = [threading.Thread(target=std_daq.client.get_status) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_silent_connection_costs_nothing(std_daq: Rig) -> None:
    with socket.create_connection(("127.0.0.1", std_daq.gateway.port)):
        assert std_daq.client.get_status()["state"] == "READY"


def test_the_file_of_choices_is_private(std_daq: Rig, network: Network) -> None:
    std_daq.client.set_config({"writer_user_id": 3})
    kept: Path = network.state.path / "std_daq.json"
    assert kept.stat().st_mode & 0o077 == 0
