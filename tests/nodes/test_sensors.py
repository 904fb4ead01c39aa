"""The machine's sensors: against psutil and the kernel's own files, and with sensors that come, go and fail."""

from __future__ import annotations

import re
import threading
import time
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from sisockdaq.nodes.sensors import Sensors, node, readings

from sisockdaq.testing import Network, RunningNode, wait_until

Sensor = namedtuple("Sensor", "label current high critical", defaults=(None, None))


def read(group: str) -> dict[str, Any]:
    (found,) = (one for one in readings.groups() if one.name == group)
    return {name: reading.value for name, reading in found.read().items()}


def test_temperatures_and_fans_are_named_by_chip_and_label(monkeypatch: pytest.MonkeyPatch) -> None:
    chips = {
        "coretemp": [Sensor("Package id 0", 51.0), Sensor("Core 0", 48.5), Sensor("Core 0", 49.0)],
        "acpitz": [Sensor("", 27.8), Sensor("", 29.8)],
        "nvme": [Sensor("Composite", None)],
    }
    fans = {"thinkpad": [Sensor("", 2345)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips, raising=False)
    monkeypatch.setattr(psutil, "sensors_fans", lambda: fans, raising=False)
    assert read("temperatures") == {
        "temperature_coretemp_package_id_0": 51.0,
        "temperature_coretemp_core_0": 48.5,
        "temperature_coretemp_core_0_3": 49.0,
        "temperature_acpitz_1": 27.8,
        "temperature_acpitz_2": 29.8,
    }
    assert read("fans") == {"fan_thinkpad_1": 2345}


def test_a_machine_without_sensors_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("sensors_temperatures", "sensors_fans", "sensors_battery"):
        monkeypatch.delattr(psutil, function, raising=False)
    assert read("temperatures") == read("fans") == read("battery") == {}
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
    assert read("battery") == read("disk_io") == {}


@pytest.mark.parametrize(
    ("left", "plugged", "expected"),
    [
        (3600, False, {"battery_charge": 80, "battery_power_plugged": False, "battery_time_left": 3600}),
        (psutil.POWER_TIME_UNLIMITED, True, {"battery_charge": 80, "battery_power_plugged": True}),
        (psutil.POWER_TIME_UNKNOWN, None, {"battery_charge": 80}),
    ],
)
def test_a_battery(monkeypatch: pytest.MonkeyPatch, left: int, plugged: bool | None, expected: dict[str, Any]) -> None:
    state = SimpleNamespace(percent=80, secsleft=left, power_plugged=plugged)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: state, raising=False)
    assert read("battery") == expected


def test_rates_are_those_between_two_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 14.0, 15.0])
    monkeypatch.setattr(readings, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    counts = iter([{"eth0": (0, 100), "lo": (1, 1)}, {"eth0": (50, 300), "veth1": (1, 1)}, {"eth0": (20, 300)}, {}])

    def counters(pernic: bool) -> dict[str, Any]:
        assert pernic
        return {name: SimpleNamespace(bytes_recv=i, bytes_sent=o) for name, (i, o) in next(counts).items()}

    monkeypatch.setattr(psutil, "net_io_counters", counters)
    (group,) = (one for one in readings.groups() if one.name == "network_io")
    assert group.read() == {}
    assert {name: (found.value, found.units) for name, found in group.read().items()} == {
        "network_eth0_receive_rate": (25, "B/s"),
        "network_eth0_send_rate": (100, "B/s"),
    }
    assert {name: found.value for name, found in group.read().items()} == {"network_eth0_send_rate": 0}
    assert group.read() == {}


def test_this_machine_is_served_as_the_kernel_sees_it(network: Network) -> None:
    network.start(Sensors, name="sensors", interval=0.1)
    network.wait_for("sensors::disk_read_rate", samples=2)
    fields, timelines = network.call("consumer.sensors.get_fields", 1, 0)
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in fields)
    assert all(entry["description"] for entry in fields.values())
    assert {entry["timeline"] for entry in fields.values()} == {"sensors"}
    assert fields["memory_total"]["units"] == "B"
    cores = [name for name in fields if re.fullmatch("cpu_[0-9]+_load", name)]
    assert len(cores) == psutil.cpu_count()
    assert {"cpu_load", "load_average_1", "swap_use", "disk_root_use", "disk_write_rate"} <= set(fields)
    found = network.client.get("sensors::memory_total", "sensors::cpu_load", "sensors::sensor_failures", start=-60)
    with open("/proc/meminfo") as kernel:  # noqa: PTH123 - no Path has less to say here
        kilobytes = int(next(kernel).split()[1])
    assert found["sensors::memory_total"].values[-1] == kilobytes * 1024
    assert ((found["sensors::cpu_load"].values >= 0) & (found["sensors::cpu_load"].values <= 100)).all()
    assert found["sensors::sensor_failures"].values[-1] == 0
    assert set(timelines["sensors"]["field"]) == set(fields)


def test_a_sensor_may_come_later_and_fail_and_the_others_stay(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips: dict[str, Any] = {}
    broken: list[Exception] = []

    def temperatures() -> dict[str, Any]:
        if broken:
            raise broken[0]
        return chips

    monkeypatch.setattr(psutil, "sensors_temperatures", temperatures, raising=False)
    running = network.start(Sensors, name="sensors", interval=0.1)
    network.wait_for("sensors::cpu_load", samples=2)
    assert "temperature_gpu_1" not in network.call("consumer.sensors.get_fields", 1, 0)[0]
    chips["gpu"] = [Sensor("", 60.0)]
    assert network.client.wait_for("sensors::temperature_gpu_1", samples=2).units == "degC"
    broken.append(OSError(5, "Input/output error"))
    wait_until(lambda: network.wait_for("sensors::sensor_failures")[-1] >= 2, what="two failures")
    before = len(network.wait_for("sensors::temperature_gpu_1"))
    more = len(network.wait_for("sensors::cpu_load")) + 3
    network.wait_for("sensors::cpu_load", samples=more)
    assert len(network.wait_for("sensors::temperature_gpu_1")) == before
    assert running.node._core().errors == 0
    broken.clear()
    network.wait_for("sensors::temperature_gpu_1", samples=before + 1)


def test_a_disk_that_does_not_answer_keeps_nothing_waiting(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, patience = threading.Event(), 15.0
    monkeypatch.setattr(psutil, "disk_usage", lambda place: stuck.wait(patience))
    monkeypatch.setattr(node, "PATIENCE", 0.0)
    network.start(Sensors, name="sensors", interval=0.1)
    try:
        network.wait_for("sensors::cpu_load", samples=3)
        wait_until(lambda: network.wait_for("sensors::sensor_failures")[-1] > 0, what="the failure")
    finally:
        stuck.set()


def test_what_is_kept_and_how_many_fields_is_bounded(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = ({f"chip{i}": [Sensor("", float(i))] for i in range(n, n + 3)} for n in range(10**6))
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: next(flood), raising=False)
    monkeypatch.setattr(node, "MAX_FIELDS", 40)
    running = network.start(Sensors, name="sensors", interval=0.1, keep_samples=5)
    wait_until(lambda: network.wait_for("sensors::sensors_refused")[-1] > 0, 30, "refused sensors")
    assert len(running.call(running.node.store.fields).fields) == 40
    wait_until(lambda: kept(running).forgotten > 3, what="samples that were let go")
    assert len(kept(running)) == 5


def kept(running: RunningNode) -> Any:
    return running.node.store.timelines["sensors"]


def test_the_promised_defaults() -> None:
    options = Sensors.Options()
    assert (options.interval, options.keep_samples) == (2.5, 1800)
    begun = time.perf_counter()
    for group in readings.groups():
        group.read()
    assert time.perf_counter() - begun < options.interval
