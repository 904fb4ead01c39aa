"""``sisockdaq calibration`` as people and scripts use it."""

from __future__ import annotations

import json

import fabio
import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from sisockdaq.calibration import Geometry, read_geometry
from sisockdaq.cli import calibration
from sisockdaq.errors import ConfigurationError, FileUnreadable, GeometryError
from tests.calibration.places import PIXEL, image_of

SHAPE = (195, 487)
PLACE = Geometry.of_beam(0.6, (240.5, 100.25), PIXEL, wavelength=1e-10, shape=SHAPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    PLACE.save(folder / "detector.poni")
    image = image_of(PLACE, "AgBh")
    np.save(folder / "agbh.npy", image)
    fabio.tifimage.TifImage(data=image).write(str(folder / "agbh.tif"))
    np.save(folder / "mask.npy", np.zeros(SHAPE, np.uint8))
    np.save(folder / "other.npy", np.zeros((20, 30), np.uint8))
    return folder


def call(*arguments, status=0):
    app = typer.Typer()
    calibration.add_commands(app)
    result = CliRunner().invoke(app, ["calibration", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_import_makes_a_poni_file_of_any_kind(folder, tmp_path):
    log = tmp_path / "fit2d.log"
    log.write_text("directDist = 600\ncenterX = 240.5\ncenterY = 100.25\nwavelength = 1.0\n")
    target = tmp_path / "made.poni"
    result = call("import", log, "--pixel-size", "172", "--shape", "195x487", "--to", target)
    assert "Fit2D of" in result.stdout
    assert "y was taken" in result.stderr
    made = read_geometry(target)
    assert (made.distance, made.beam_centre) == (pytest.approx(0.6), pytest.approx((240.5, 100.25)))
    assert "Poni1: " in call("import", target, "--energy", "12.398419843320026").stdout
    wrong = tmp_path / "wrong.poni"
    wrong.write_text(target.read_text().replace("Distance: 0.6", "Distance: 600"))
    with pytest.raises(GeometryError, match="was not taken"):
        call("import", wrong, "--to", tmp_path / "again.poni")
    call("import", wrong, "--to", tmp_path / "again.poni", "--anyway")
    assert read_geometry(tmp_path / "again.poni").distance == 600


def test_show_says_where_the_detector_stands(folder):
    text = call("show", folder / "detector.poni").stdout
    assert "x = 240.500, y = 100.250 pixels" in text
    assert "195 rows × 487 columns" in text
    shown = json.loads(call("show", folder / "detector.poni", "--json").stdout)
    assert shown["beam_centre_px"] == pytest.approx([240.5, 100.25])
    assert shown["kind"] == "PONI file"


def test_check_tells_what_is_wrong_by_its_status(folder, tmp_path):
    good = call("check", folder / "detector.poni", "--image", folder / "agbh.tif", "--calibrant", "AgBh")
    assert "rings of AgBh found" in good.stdout
    assert "plausible, no findings" in good.stdout
    bad = call("check", folder / "detector.poni", "--wavelength", "12398", status=1)
    assert "cannot be right" in bad.stdout
    other = call("check", folder / "detector.poni", "--mask", folder / "other.npy", "--json", status=1)
    assert json.loads(other.stdout)["findings"][0]["about"] == "mask"
    found = json.loads(
        call("check", folder / "detector.poni", "--image", folder / "other.npy", "--json", status=1).stdout
    )
    assert found["findings"][0]["about"] == "image"


def test_a_mask_that_leaves_the_gaps_of_an_image_is_told(folder, tmp_path):
    image = np.load(folder / "agbh.npy")
    image[:, 100:110] = np.iinfo(image.dtype).max
    np.save(tmp_path / "gaps.npy", image)
    arguments = ("check", folder / "detector.poni", "--image", tmp_path / "gaps.npy", "--mask")
    assert "covers 0 % of the 1950 pixels" in call(*arguments, folder / "mask.npy").stdout
    np.save(tmp_path / "right.npy", (image == image.max()).astype(np.uint8))
    assert "no findings" in call(*arguments, tmp_path / "right.npy").stdout


def test_rings_draws_and_lists_them(folder, tmp_path):
    target = tmp_path / "rings.png"
    arguments = ("rings", folder / "detector.poni", "--image", folder / "agbh.npy", "--calibrant", "AgBh")
    result = call(*arguments, "--mask", folder / "mask.npy", "--to", target)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert "58.38" in result.stdout
    found = json.loads(call(*arguments, "--to", target, "--json").stdout)
    assert found["rings"][0]["state"] == "found"
    assert found["distance_scale"] == pytest.approx(1, abs=5e-3)


def test_a_master_brings_its_own_image_and_mask(folder, tmp_path):
    path = tmp_path / "run_master.h5"
    image = image_of(PLACE, "AgBh")
    mask = np.zeros(SHAPE, np.uint32)
    mask[:, 240:247] = 1
    image[mask != 0] = 1_000_000
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/instrument/detector")
        facts = {"distance": (0.6, "m"), "x_pixel_size": (172e-6, "m"), "y_pixel_size": (172e-6, "m"),
                 "beam_center_x": (240.5, "pixel"), "beam_center_y": (100.25, "pixel")}  # fmt: skip
        for name, (value, unit) in facts.items():
            detector[name] = value
            detector[name].attrs["units"] = unit
        detector["pixel_mask"] = mask
        file["entry/data/data"] = np.stack([np.zeros_like(image), image])
    arguments = ("rings", path, "--calibrant", "AgBh", "--wavelength", "1", "--to", tmp_path / "r.png", "--json")
    assert all(ring["state"] == "found" for ring in json.loads(call(*arguments, "--frame", "1").stdout)["rings"])
    with pytest.raises(FileUnreadable, match="has 2 images"):
        call(*arguments, "--frame", "2")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show", "--shape", "1043"], "--shape"),
        (["show", "--shape", "axb"], "--shape"),
        (["show", "--pixel-size", "-1"], "--pixel-size"),
        (["show", "--wavelength", "1", "--energy", "12"], "both"),
        (["check", "--calibrant", "AgBh"], "in an image"),
        (["rings", "--calibrant", "AgBh"], "has no image"),
    ],
)
def test_options_that_make_no_sense_are_refused(folder, arguments, reason):
    with pytest.raises(ConfigurationError, match=reason):
        call(arguments[0], folder / "detector.poni", *arguments[1:])


def test_what_is_no_image_is_refused(folder, tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    for name in ("text.tif", "absent.tif"):
        with pytest.raises(FileUnreadable, match=name):
            call("check", folder / "detector.poni", "--image", tmp_path / name)


def test_an_image_of_which_half_is_there_is_refused_with_the_reason(folder, tmp_path):
    whole = tmp_path / "whole.cbf"
    noise = np.random.default_rng(1).integers(0, 9000, SHAPE).astype(np.int32)
    fabio.cbfimage.CbfImage(data=noise).write(str(whole))
    (tmp_path / "half.cbf").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(
        FileUnreadable, match=r"half\.cbf: cannot be read .*: its pixels are not .* is it whole\?"
    ) as refused:
        call("check", folder / "detector.poni", "--image", tmp_path / "half.cbf")
    assert "copy it again" in refused.value.remedy
