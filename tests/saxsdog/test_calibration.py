"""The calibration's JSON: keys, defaults, mistakes by key, what is odd."""

import json

import pytest

from sisockdaq.errors import ConfigurationError
from sisockdaq.saxsdog.calibration import read_calibration
from tests.saxsdog import literal


def test_every_key_is_read_and_the_json_is_kept_as_it_was_sent(tmp_path):
    conf = literal.calibration(
        PolarizationCorrection={"Fraction": 0.9, "Angle": 5},
        Slices=[{"Direction": "x", "Plane": "InPlane", "CutPosition": "7", "CutMargin": 2, "MaskRef": -1}],
        **{"Geometry__Tilt": {"TiltRotDeg": 3.5, "TiltAngleDeg": -1}, "Live-Filelisting": True, "GISAXSmode": True},
    )
    conf["Masks"][0] |= {"Phi-mode": True, "Name": "left", "qStart": 0.5}
    path = tmp_path / "cal.json"
    path.write_text(json.dumps(conf))
    for source in (conf, path, str(path), json.dumps(conf)):
        read = read_calibration(source)
        assert json.dumps(read.raw) == json.dumps(conf), "the order of the keys too"
    assert (read.geometry.tilt.rotation, read.geometry.tilt.angle) == (3.5, -1)
    assert read.geometry.beam_center == (16.0, 17.05)
    assert (read.geometry.distance, read.geometry.pixel_size, read.geometry.image_size) == (800, [172, 172], (40, 31))
    (mask,), (cut,) = read.masks, read.slices
    assert (mask.oversampling, mask.pixels_per_bin, mask.name, mask.phi_mode, mask.q_start, mask.q_stop) == (
        3, 1, "left", True, 0.5, 10,
    )  # fmt: skip
    assert (cut.direction, cut.plane, cut.position, cut.margin, cut.incident_angle, cut.mask) == (
        "x", "InPlane", 7, 2, 0, -1,
    )  # fmt: skip
    assert (read.polarization.fraction, read.polarization.angle) == (0.9, 5)
    assert (read.directory, read.threads, read.gisaxs_mode, read.overwrite_files, read.live_filelisting) == (
        ["data"], 2, True, False, True,
    )  # fmt: skip
    assert read.warnings() == []


def test_what_may_be_left_out_has_saxsdogs_defaults():
    conf = literal.calibration()
    for key in ("Title", "Directory", "Threads", "GISAXSmode", "OverwriteFiles", "Live-Filelisting"):
        del conf[key]
    del conf["Geometry"]["Tilt"]
    conf["Masks"] = [{"MaskFile": "a.msk"}]
    read = read_calibration(conf)
    (mask,) = read.masks
    assert (mask.oversampling, mask.pixels_per_bin, mask.q_start, mask.q_stop, mask.phi_mode) == (3, 1, 0, 0, False)
    assert (read.workers, read.polarization, read.geometry.tilt.angle) == (2, None, 0)
    assert read.warnings() == ["Masks.0.qStop: 0 is not above qStart, so I0, I1 and I2 are 0"]


def test_a_lone_pixel_size_is_doubled_where_slices_are_as_saxsdog_does():
    conf = literal.calibration(Slices=[{}], Geometry__PixelSizeMicroM=[172.0])
    conf["Slices"][0]["CutPosition"] = 5
    assert read_calibration(conf).raw["Geometry"]["PixelSizeMicroM"] == [172.0, 172.0]
    assert conf["Geometry"]["PixelSizeMicroM"] == [172.0], "the caller's own is left alone"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Wavelength": 0}, "Wavelength: Input should be greater than 0 (given: 0)"),
        ({"Wavelength": "green"}, "Wavelength: Input should be a valid number"),
        ({"Geometry__BeamCenter": [1]}, "Geometry.BeamCenter.1: is missing"),
        ({"Geometry__DedectorDistanceMM": -5}, "Geometry.DedectorDistanceMM: Input should be greater than 0"),
        ({"Geometry__DedectorDistanceMM": float("nan")}, "Geometry.DedectorDistanceMM: "),
        ({"Geometry__Imagesize": [0, 5]}, "Geometry.Imagesize.0: Input should be greater than 0"),
        ({"Geometry__PixelSizeMicroM": []}, "Geometry.PixelSizeMicroM: List should have at least 1 item"),
        ({"Geometry__Tilt": {"TiltAngleDeg": 90}}, "Geometry.Tilt.TiltAngleDeg: Input should be less than 90"),
        ({"Masks": []}, "Masks: neither a mask nor a slice is named"),
        ({"Masks": [literal.mask(Oversampling=0)]}, "Masks.0.Oversampling: Input should be greater than or equal to 1"),
        ({"Masks": [literal.mask(**{"Phi-mode": True, "qStop": 0})]}, "Masks.0.qStop: 0 is not above qStart 0"),
        ({"Slices": [{"Direction": "z"}]}, "Slices.0.Direction: Input should be 'x' or 'y' (given: 'z')"),
        ({"Slices": [{"CutPosition": 5, "MaskRef": 1}]}, "Slices.0.MaskRef: 1, but there are 1 masks"),
        ({"Slices": [{"CutPosition": 99}]}, "Slices.0.CutPosition: 99 ± 1 is outside of the image's 40 pixels"),
        ({"PolarizationCorrection": {"Fraction": 1.5}}, "PolarizationCorrection.Fraction: Input should be less than"),
        ({"Threads": -1}, "Threads: Input should be greater than or equal to 0"),
    ],
)
def test_a_mistake_is_told_by_its_key(change, problem):
    with pytest.raises(ConfigurationError) as caught:
        read_calibration(literal.calibration(**change))
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        read_calibration({"Geometry": {"DedectorDistanceMM": 1}})
    assert {"Wavelength: is missing", "Geometry.BeamCenter: is missing"} <= set(caught.value.problems)


def test_files_that_are_none_are_told(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_calibration(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is not JSON"):
        read_calibration(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"Geometry__BeamCenter": [-3, 5]}, "Geometry.BeamCenter: y = -3 lies outside"),
        ({"Geometry__DedectorDistanceMM": 2}, "Geometry.DedectorDistanceMM: 2 mm"),
        ({"Geometry__PixelSizeMicroM": [0.172]}, "Geometry.PixelSizeMicroM: [0.172]"),
        ({"Geometry__PixelSizeMicroM": [172, 170]}, "Geometry.PixelSizeMicroM: the pixels are not square"),
        ({"Geometry__Tilt": {"TiltAngleDeg": 60}}, "Geometry.Tilt.TiltAngleDeg: 60°"),
        ({"Wavelength": 154}, "Wavelength: 154 Å"),
        ({"Masks": [literal.mask(Oversampling=9)]}, "Masks.0.Oversampling: 9"),
        ({"Threads": 200}, "Threads: 200 worker processes"),
        ({"Detector": 1}, "Detector: is not a known key"),
        ({"Masks": [literal.mask(oversampling=1)]}, "Masks.0.oversampling: is not a known key"),
    ],
)
def test_what_is_odd_is_told_and_taken(change, start):
    (line,) = read_calibration(literal.calibration(**change)).warnings()
    assert line.startswith(start)
