"""One running site for all tests of this folder: real processes, real packets, a small detector."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sisockdaq.cli._trial import private_site, trial
from sisockdaq.client import Client
from sisockdaq.detector.simulator import Simulation
from tests.endtoend.house import SEED, House

SITE = """\
site: endtoend
detector:
  model: jungfrau
  modules: 2
  readout_rows: 128
  geometry: {distance: 0.1, poni1: 0.0096, poni2: 0.0384, wavelength: 1.0e-10}
nodes:
  receiver:   {type: detector_receiver, udp: [{port: 50000}, {port: 50001}], ring_slots: 128, hang_after: 2}
  integrator: {type: integrator, bins: 200, keep: 3, save: [nxazint]}
  writer:     {type: file_writer, directory: runs, images_per_file: 25, flush_interval: 0.3,
               allowed: [runs, OPEN]}
  archive:    {type: hdf5_archive, directory: runs, growing_interval: 0.3}
gateways:
  grafana: {port: 5000}
  std_daq: {port: 5001}
"""
"""Small images and small files; the integrator remembers so little that older samples can only come from files, and
the ring holds more frames than come while a hung consumer is borne."""


@pytest.fixture(scope="package")
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may enter, unlike pytest's own, and the site's writer may write below."""
    folder = Path(tempfile.mkdtemp(prefix="sisockdaq-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory, open_folder: Path) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "site.yml").write_text(SITE.replace("OPEN", str(open_folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISOCKDAQ_STATE", str(tmp_path_factory.mktemp("s")))
        with trial(private_site(folder, "test")) as site, Client(site.site.site, control=True) as client:
            assert site.site.detector is not None
            yield House(site, client, Simulation(site.site.detector, seed=SEED))


@pytest.fixture
def house(running: House) -> Iterator[House]:
    """The running site, whole, with no acquisition under way."""
    running.wait_whole()
    running.settle()
    yield running
    running.tidy()


@pytest.fixture(scope="session")
def sample() -> Path:
    """The recorded EIGER frame."""
    path = Path(__file__).parents[3] / "shared" / "data" / "eiger9m" / "frame29512.tar.xz"
    if not path.exists():
        pytest.skip(f"the recorded EIGER frame is not here: {path}")
    return path
