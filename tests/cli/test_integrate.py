"""``sisockdaq integrate`` as a person and as a script call it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import Result as Called
from sisockdaq.nodes.integrator.keeping import Keeper
from typer.testing import CliRunner

from sisockdaq.cli import app
from sisockdaq.errors import ConfigurationError, FileUnreadable, GeometryError, SisockdaqError, StorageError
from sisockdaq.integrate.reduction import Reducer
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator
from sisockdaq.nexus.reduced import read_curve, read_reduced
from sisockdaq.testing.waiting import wait_until
from tests.integrate.test_live import FILL as RIG_FILL
from tests.integrate.test_live import SHAPE as RIG_SHAPE
from tests.integrate.test_live import Rig
from tests.nexus import data
from tests.nexus.test_masters import FRAMES, begin, end, write

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "integrate-recorded.md"

LOST = (3, 11, 12)
HIDDEN = np.zeros(data.SHAPE, bool)
HIDDEN[1, 2] = True
"""The pixel that the masters of `begin` mask."""

PLACE = {"distance": 0.15, "poni1": 0.0003, "poni2": 0.0006, "rot1": 0.02, "wavelength": 1.2e-10}
PONI = """\
poni_version: 2
Detector: Detector
Detector_config: {"pixel1": 7.5e-05, "pixel2": 7.5e-05}
Distance: 0.15
Poni1: 0.0003
Poni2: 0.0006
Rot1: 0.02
Rot2: 0
Rot3: 0
Wavelength: 1.2e-10
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A master without the frames of `LOST`, and a PONI file; nothing of it is changed."""
    folder = tmp_path_factory.mktemp("recorded")
    files = begin(folder, "legacy")
    for index in range(FRAMES):
        if index not in LOST:
            write(files, index)
    end(files)
    (folder / "new.poni").write_text(PONI)
    return folder


def call(*arguments: object) -> Called:
    return CliRunner().invoke(app(), ["integrate", *map(str, arguments), "--no-cache"])


def reducer(**settings: Any) -> Reducer:
    chosen = IntegrationSettings(**{"geometry": PLACE, "bins": 6, **settings})
    made = Reducer(make_integrator(chosen, shape=data.SHAPE, pixel_size=75e-6, hidden=HIDDEN), chosen, 1)
    made.follow_fill(data.FILL)
    return made


def test_a_master_with_another_calibration(home: Path, tmp_path: Path) -> None:
    result = call(
        home / "run_master.h5", "-g", home / "new.poni", "--bins", 6, "--split", "bbox", "--polarization", 0.9,
        "--radial-range", "0.5,3", "--to", tmp_path, "-f", "nxazint", "-f", "chi", "--threads", 3,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "run: 22 frames in" in result.stdout
    assert "not in the files of the acquisition: 3, 11-12" in result.stderr
    found = read_reduced(tmp_path / "run_azint_000001.h5")
    by = reducer(split="bbox", polarization=0.9, radial_range=(0.5, 3))
    here = [index for index in range(FRAMES) if index not in LOST]
    assert found.index.tolist() == here
    assert found.time.tolist() == [data.frame_time(index) for index in here]
    assert found.parameters["frames_missing"] == "3, 11-12"
    curves = [by.reduce(data.image(index)).curve for index in here]
    np.testing.assert_array_equal(found.product.intensity, [curve.intensity for curve in curves])
    np.testing.assert_array_equal(found.product.sigma, [curve.sigma for curve in curves])
    assert len(list(tmp_path.glob("run_*.chi"))) == len(here)
    assert "good for NXazint1d" in CliRunner().invoke(app(), ["check", str(found.path)]).stdout


def test_a_script_gets_json_and_some_frames_averaged(home: Path, tmp_path: Path) -> None:
    result = call(
        home / "run_master.h5", "-g", home / "new.poni", "--bins", 6, "--frames", "5:15:2", "--average", "--json",
        "--set", "rois.beam=[1, 2, 9, 7]", "--set", "sectors.right.azimuth_range=[-90, 90]", "--to", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)["acquisitions"]
    assert (told["frames"], told["failures"], told["missing"]) == (4, 0, "11-12")
    (path,) = told["files"]
    found = read_reduced(path)
    frames = [5, 7, 9, 13]
    total = sum(data.image(index).astype(np.int64) for index in frames)
    expected = reducer().reduce(total).curve
    assert list(found.products) == ["curve", "curve_right"]
    np.testing.assert_allclose(found.product.intensity, [expected.intensity / len(frames)], rtol=1e-12)
    assert found.numbers["roi_beam"].tolist() == [total[2:7, 1:9].sum()]
    assert (found.index.tolist(), found.time.tolist()) == ([5], [data.frame_time(5)])


def test_the_geometry_of_the_file_serves_where_none_is_given(home: Path, tmp_path: Path) -> None:
    result = call(home / "run_master.h5", "--bins", 6, "--to", tmp_path)
    assert result.exit_code == 0, result.output
    assert "geometry as run_master.h5 says it" in result.stderr
    found = read_reduced(tmp_path / "run_azint_000001.h5")
    place = {"distance": 0.2, "poni1": 4.25 * 75e-6, "poni2": 3.5 * 75e-6, "wavelength": 1e-10}
    expected = reducer(geometry=place).reduce(data.image(24)).curve
    np.testing.assert_allclose(found.product.intensity[-1], expected.intensity, rtol=1e-9)


def test_the_settings_of_a_site_are_the_beginning(home: Path, tmp_path: Path) -> None:
    mask = np.zeros(data.SHAPE, np.uint8)
    mask[4:6] = 1
    np.save(tmp_path / "mask.npy", mask)
    (tmp_path / "site.yml").write_text(
        "site: test\n"
        "detector:\n"
        "  model: jungfrau\n"
        "  geometry: {distance: 0.15, poni1: 0.0003, poni2: 0.0006, rot1: 0.02, wavelength: 1.2e-10}\n"
        "nodes:\n"
        "  receiver: {type: stream_receiver, address: 'tcp://127.0.0.1:9999'}\n"
        "  integrator: {type: integrator, unit: q_A^-1, bins: 7, mask: mask.npy, keep: 10}\n"
    )
    result = call(home / "run_master.h5", "--site", tmp_path, "--bins", 6, "--to", tmp_path)
    assert result.exit_code == 0, result.output
    found = read_reduced(tmp_path / "run_azint_000001.h5")
    expected = reducer(unit="q_A^-1", mask=str(tmp_path / "mask.npy")).reduce(data.image(24)).curve
    np.testing.assert_array_equal(found.product.intensity[-1], expected.intensity)
    result = call(home / "run_master.h5", "--site", f"{tmp_path}::other", "--to", tmp_path)
    assert "has no integrator other" in str(result.exception)


def test_cakes_are_the_live_nodes_own(tmp_path: Path) -> None:
    """What the node saves, and what the command makes of the same frames, recorded: equal to the last bit."""
    bins = {"azimuth_bins": 8, "bins": 20}
    images = np.random.default_rng(4).poisson(9, (5, *RIG_SHAPE)).astype(np.uint16)
    images[3, 5:9] = RIG_FILL
    rig = Rig(cake=bins)
    rig.start(len(images))
    keeper = Keeper(tmp_path / "live", ["nxazint"])
    for index, image in enumerate(images):
        rig.send(index, image)
        rig.work()
        keeper.add("run", rig.reducer, *rig.seen[-1])
    keeper.close(30)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_dataset("entry/data/data", data=images, chunks=(1, *RIG_SHAPE))
    (tmp_path / "same.poni").write_text(rig.reducer.integrator.poni)
    given = [tmp_path / "run.h5", "-g", tmp_path / "same.poni", "--bins", 30, "--cake", "8x20"]
    result = call(*given, "--to", tmp_path / "again", "--threads", 2)
    assert result.exit_code == 0, result.output
    live, again = (read_reduced(tmp_path / name / "run_azint_000001.h5") for name in ("live", "again"))
    assert list(live.products) == list(again.products) == ["curve", "cake"]
    for name, product in live.products.items():
        np.testing.assert_array_equal(again.products[name].intensity, product.intensity)
        np.testing.assert_array_equal(again.products[name].sigma, product.sigma)
        np.testing.assert_array_equal(again.products[name].norm, product.norm)
    assert live.products["cake"].intensity.shape == (5, 8, 20)
    assert not np.array_equal(live.products["cake"].intensity[3], live.products["cake"].intensity[2], equal_nan=True)
    checked = CliRunner().invoke(app(), ["check", str(again.path)])
    assert (checked.exit_code, "NXazint2d" in checked.stdout) == (0, True), checked.stdout

    result = call(*given, "--to", tmp_path / "mean", "--average")
    assert result.exit_code == 0, result.output
    mean = read_reduced(tmp_path / "mean" / "run_azint_000001.h5").products["cake"]
    cakes = [rig.reducer.integrator.integrate2d(image, **bins) for image in images]
    norm = sum(cake.sum_normalization for cake in cakes)
    with np.errstate(invalid="ignore"):
        expected = sum(cake.sum_signal for cake in cakes) / norm
        sigma = np.sqrt(sum(np.asarray(cake.sum_variance) for cake in cakes)) / norm
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(mean.intensity, [expected], rtol=1e-12)
    np.testing.assert_allclose(mean.sigma, [sigma], rtol=1e-12)


def test_cakes_of_a_site_are_left_out_where_no_format_has_room(home: Path, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(
        "site: test\n"
        "detector: {model: jungfrau, geometry: {distance: 0.15, poni1: 0.0003, poni2: 0.0006, wavelength: 1.2e-10}}\n"
        "nodes:\n"
        "  receiver: {type: stream_receiver, address: 'tcp://127.0.0.1:9999'}\n"
        "  integrator: {type: integrator, bins: 7, cake: {azimuth_bins: 4, bins: 5}}\n"
    )
    for number, (words, cakes) in enumerate(
        [([], (4, 5)), (["--cake", "none"], None), (["-f", "chi"], None), (["--set", "cake=true"], (360, 200))]
    ):
        to = tmp_path / str(number)
        result = call(home / "run_master.h5", "--site", tmp_path, "--frames", "0:2", "--to", to, *words)
        assert result.exit_code == 0, result.output
        found = [read_reduced(path).products for path in to.glob("*_azint_*.h5")]
        shapes = [products["cake"].intensity.shape[1:] for products in found if "cake" in products]
        assert shapes == ([] if cakes is None else [cakes])


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        (["--bins", "0", "--unit", "q"], ConfigurationError, "bins: .*\nunit: "),
        (["--frames", "5"], ConfigurationError, "no range of frames"),
        (["--frames", "11:13"], ConfigurationError, "has no such frames"),
        (["--radial-range", "5"], ConfigurationError, "no range"),
        (["-f", "xls"], ConfigurationError, "no format"),
        (["-g", "gone.poni"], GeometryError, "gone.poni: no such file"),
        (["--mask", "gone.npy"], SisockdaqError, "gone.npy: no such mask"),
        (["gone_master.h5"], FileUnreadable, "gone_master.h5: no such file"),
        (["--set", "colour=blue"], ConfigurationError, "colour"),
        (["--cake", "360"], ConfigurationError, "no number of bins"),
        (["--cake", "0x200"], ConfigurationError, "cake.azimuth_bins: "),
        (["--cake", "8x20", "-f", "chi"], ConfigurationError, "no room for cakes in chi"),
        (["--cake", "8x20", "--set", "method=median"], ConfigurationError, "cakes are integrated by mean only"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    home: Path, tmp_path: Path, arguments: list[str], error: type[SisockdaqError], reason: str
) -> None:
    given = [] if "-g" in arguments else ["-g", str(home / "new.poni")]
    result = call(home / "run_master.h5", *given, *arguments, "--to", tmp_path / "new")
    assert isinstance(result.exception, error)
    with pytest.raises(error, match=reason):
        raise result.exception
    assert not (tmp_path / "new").exists()


def test_files_of_one_name_and_files_in_the_way_are_refused(home: Path, tmp_path: Path) -> None:
    master = home / "run_master.h5"
    given = ["-g", home / "new.poni", "--bins", 6, "--to", tmp_path]
    other = tmp_path / "other"
    other.mkdir()
    for path in home.glob("run_*"):
        (other / path.name).write_bytes(path.read_bytes())
    both = call(master, other / "run_master.h5", *given)
    assert "would have the same reduced files" in str(both.exception)
    assert call(master, *given).exit_code == 0
    assert isinstance(call(master, *given).exception, StorageError)
    assert call(master, *given, "--overwrite").exit_code == 0


def test_a_damaged_frame_is_named_and_the_others_go_on(home: Path, tmp_path: Path) -> None:
    for path in home.glob("run_*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with h5py.File(tmp_path / "run_data_000002.h5", "r", locking=False) as file:
        place = file["/entry/data/data"].id.get_chunk_info_by_coord((4, 0, 0))
    with (tmp_path / "run_data_000002.h5").open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * 12)
    result = call(tmp_path / "run_master.h5", "-g", home / "new.poni", "--bins", 6, "--to", tmp_path)
    assert result.exit_code == 1
    assert "frame 14 is left out: " in result.stderr
    found = read_reduced(tmp_path / "run_azint_000001.h5")
    assert found.index.tolist() == [index for index in range(FRAMES) if index not in (*LOST, 14)]


def test_ctrl_c_leaves_whole_files_and_says_how_many_frames_are_in_them(tmp_path: Path, home: Path) -> None:
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("entry/data/data", (50_000, *data.SHAPE), "u2", chunks=(50, *data.SHAPE))[:50] = 1
    words = ["integrate", "long.h5", "-g", home / "new.poni", "--bins", "6", "-f", "nxazint", "-f", "chi", "--no-cache"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sisockdaq.cli", *map(str, words)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: (tmp_path / "long_000100.chi").exists(), 60, "a hundred frames")
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in complained
    found = read_reduced(tmp_path / "long_azint_000001.h5")
    assert found.state == "finished"
    assert 100 < len(found) < 50_000
    assert found.index.tolist() == list(range(len(found)))
    assert f"long: {len(found)} frames in" in said
    assert f"stopped: {len(found)} of 50000 frames are in the files, which are whole" in complained
    texts = sorted(tmp_path.glob("long_*.chi"))
    assert len(texts) == len(found)
    assert len(read_curve(texts[-1]).axis) == 6


def test_the_guides_example_runs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for path in (*home.glob("run_*"), home / "new.poni"):
        (tmp_path / path.name.replace("run_master", "run_0001_master")).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(GUIDE), "exec"), {})
    assert len(read_reduced(tmp_path / "reduced" / "run_0001_azint_000001.h5")) == FRAMES - len(LOST)
