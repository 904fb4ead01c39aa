"""Sockets, pacing and the simulator's promises."""

from __future__ import annotations

import os
import socket
import threading
import time

import numpy as np
import pytest

from sisockdaq.detector import sockets
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.sender import Pacer, PacketSender
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.errors import ConfigurationError, ConnectionFailed, PortTaken

SMALL = DetectorOptions(model="jungfrau", readout_rows=8)


def test_a_taken_port_names_its_holder():
    (first,) = sockets.open_sockets([("127.0.0.1", 0)], 2**16)
    with first:
        port = first.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"UDP port {port} on 127.0.0.1 is taken by .*\(process {os.getpid()}\)"):
            sockets.open_sockets([("127.0.0.1", 0), ("127.0.0.1", port)], 2**16)


def test_a_foreign_address_is_refused():
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        sockets.open_sockets([("192.0.2.1", 0)], 2**16)


def test_a_small_buffer_is_warned_of(monkeypatch):
    (one,) = sockets.open_sockets([("127.0.0.1", 0)], 2**16)
    with one:
        assert sockets.buffer_warning([one], 2**16) is None
        monkeypatch.setattr(sockets, "granted_buffer", lambda _: 212992)
        warning = sockets.buffer_warning([one], 32 * 2**20)
    assert warning is not None
    assert "granted 208 KiB of receive buffer, 32 MiB wanted" in warning
    assert "sysctl -w net.core.rmem_max=33554432" in warning


def test_drops_of_the_kernel_are_seen():
    (one,) = sockets.open_sockets([("127.0.0.1", 0)], 2**16)
    with one, PacketSender([one.getsockname()], 8240) as sender:
        before = sockets.dropped_by_kernel([one])
        for _ in range(100):
            sender.send_one(0, np.zeros(8240, np.uint8))
        assert sockets.dropped_by_kernel([one]) > before


def test_trains_are_not_taken_where_they_could_hold_more_than_a_frame():
    (one,) = sockets.open_sockets([("127.0.0.1", 0)], 2**16)
    with one:
        assert not sockets.take_trains([one], SMALL)


def test_sending_where_nobody_listens_goes_on():
    (one,) = sockets.open_sockets([("127.0.0.1", 0)], 2**16)
    target = one.getsockname()
    one.close()
    assert simulate(SMALL, [target], frames=5, rate=None).frames == 5


def test_an_unknown_host_is_refused():
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid"):
        PacketSender([("no-such-host.invalid", 1)], 100)


def test_the_pace_is_kept_and_does_not_make_up_for_long_pauses():
    pacer = Pacer(200.0)
    begin = time.perf_counter()
    for _ in range(21):
        assert pacer.wait()
    assert time.perf_counter() - begin >= 0.0995
    pacer = Pacer(1e4, catch_up=3)
    pacer._next -= 5.0
    begin = time.perf_counter()
    for _ in range(11):
        pacer.wait()
    assert time.perf_counter() - begin >= 0.00095


def test_a_wait_ends_when_told():
    stop = threading.Event()
    pacer = Pacer(0.001, stop=stop)
    assert pacer.wait()
    threading.Timer(0.05, stop.set).start()
    begin = time.monotonic()
    assert not pacer.wait()
    assert time.monotonic() - begin < 20


def test_same_seed_same_images_and_losses():
    first, second = Simulation(SMALL, seed=4), Simulation(SMALL, seed=4)
    np.testing.assert_array_equal(first.image(3), second.image(3))
    assert (first.image(0) != first.image(1)).any()
    (sink,) = sockets.open_sockets([("127.0.0.1", 0)], 2**20)
    with sink:
        runs = [
            simulate(SMALL, [sink.getsockname()], frames=30, rate=None, seed=4, disturbance=Disturbance(loss=0.2))
            for _ in range(2)
        ]
    assert runs[0].lost == runs[1].lost
    assert runs[0].lost


def test_jungfrau_values_use_14_bits_and_gain_stages():
    image = Simulation(DetectorOptions(model="jungfrau")).image(0)
    assert set(np.unique(image >> 14)) <= {0, 1, 3}
    assert (image >> 14 == 1).any()


def test_a_simulation_without_end_ends_when_told():
    stop = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sent = simulate(
            SMALL, [sink.getsockname()], frames=None, rate=1000,
            on_frame=lambda sent: stop.set() if sent.frames == 7 else None, stop=stop,
        )  # fmt: skip
    assert sent.frames == 7
