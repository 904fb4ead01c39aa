"""A real EIGER frame through the whole chain: in order, shuffled, and with packets left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sisockdaq.cli._trial import Trial, example_site, private_site, trial
from sisockdaq.cli.acceptance import start_when_attached
from sisockdaq.cli.packets import udp_targets
from sisockdaq.client import Client, Run
from sisockdaq.detector.recording import Recording
from sisockdaq.detector.replay import replay
from tests.endtoend.house import DEADLINE, images_of, series_of, wait_for

PACKETS = 72 * 128

Taken = tuple[Run, npt.NDArray[Any]]
Take = Callable[..., Taken]


@pytest.fixture(scope="module")
def eiger(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trial, Client]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISOCKDAQ_STATE", str(tmp_path_factory.mktemp("e")))
        with (
            trial(private_site(example_site("eiger9m"), "test")) as site,
            Client(site.site.site, control=True) as client,
        ):
            yield site, client


@pytest.fixture
def take(eiger: tuple[Trial, Client], sample: Path) -> Take:
    """Replay the frame into an acquisition; return it and the image that the client gets of it."""
    site, client = eiger

    def taken(name: str, **options: Any) -> Taken:
        run = start_when_attached(client, site, name, 1)
        with Recording(sample) as recording:
            replay(recording, udp_targets(site.site), rate=1.0, **options)
        run.wait(DEADLINE, progress=False)
        assert run.ledger.balance() == []
        assert run.ledger.reported("frames_written") == run.ledger.reported("frames_integrated") == 1
        wait_for(lambda: (name, 1) in frames_archived(client), "the archive to have it")
        image = client.image("receiver::image", run, 0)
        live = client.get("receiver::sum", "receiver::maximum", start=run.status()["started"])
        assert image.number == 29512
        assert live["receiver::maximum"].values[-1] == image.values[image.values != np.uint32(0xFFFFFFFF)].max()
        np.testing.assert_array_equal(images_of(run.status()["master"]), [image.values])
        return run, image.values

    return taken


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_recorded_frame_comes_back_bit_for_bit(take: Take, shuffle: bool) -> None:
    run, image = take(f"whole_{shuffle}", shuffle=shuffle)
    ledger = run.ledger
    assert (ledger.packets_expected, ledger.packets_received, ledger.packets_lost) == (PACKETS, PACKETS, 0)
    assert ledger.frames_complete == 1
    # From the sample's description.
    assert (int(image.sum(dtype=np.uint64)), int(image.max())) == (9792514662, 1539720)
    assert hashlib.sha256(image.astype("<u4").tobytes()).hexdigest().startswith("5d0697728ee32bb8")
    assert series_of(run.status()["master"], "receiver", "sum").tolist() == [9792514662]


def test_without_some_packets_exactly_their_pixels_are_filled(take: Take, eiger: tuple[Trial, Client]) -> None:
    dropped = [(0, 0), (1, 127), (3, 64), (5, 17), (40, 0), (71, 126)]
    _, whole = take("reference")
    run, image = take("partial", drop=dropped, shuffle=True)
    ledger = run.ledger
    assert (ledger.packets_lost, ledger.frames_partial, ledger.frames_complete) == (len(dropped), 1, 0)
    expected = whole.copy()
    detector = eiger[0].site.detector
    assert detector is not None
    assert detector.module_positions is not None
    for stream, packet in dropped:
        expected[pixels_of(detector.module_positions[stream], packet)] = 0xFFFFFFFF
    assert np.count_nonzero(expected != whole) > 0
    np.testing.assert_array_equal(image, expected)


def frames_archived(client: Client) -> list[tuple[str, int]]:
    return [(entry["acquisition"], entry["frames"]) for entry in client.acquisitions()]


def pixels_of(position: tuple[int, int, int, int], packet: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return rows and columns of a packet's pixels: two data rows of twice 256 pixels, with a gap of 2 between."""
    x0, y0, _, y1 = position
    step = 1 if y1 > y0 else -1
    rows = y0 + step * np.array([2 * packet, 2 * packet + 1])
    columns = x0 + np.r_[0:256, 258:514]
    return np.ix_(rows, columns)  # type: ignore[return-value]
