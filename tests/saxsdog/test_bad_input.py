"""Pictures, masks and calibrations that cannot be right: what is said of each, and that the queue goes on."""

import os
from pathlib import Path

import fabio
import numpy as np
import pytest

from sisockdaq.errors import ConfigurationError, MaskError
from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.pictures import pilatus_tiff
from sisockdaq.saxsdog.queue import PictureQueue
from tests.saxsdog import literal

SHAPE = (40, 31)
DEADLINE = 30.0

ALL, NONE = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
HALF = np.arange(SHAPE[1])[None, :] < np.full((SHAPE[0], 1), 15)
CUT = {"Direction": "y", "Plane": "Vertical", "CutPosition": 25, "CutMargin": 2, "IncidentAngle": 0.2, "MaskRef": 0}


def reduction(valid=ALL, **changes):
    return Reduction(read_calibration(literal.calibration(Threads=1, **changes)), [valid])


def with_nan(*places):
    image = np.full(SHAPE, 5.0, np.float32)
    for place in places:
        image[place] = np.nan
    return image


# Before a queue begins.


@pytest.mark.parametrize(
    ("valid", "changes", "said", "remedy"),
    [
        (NONE, {}, "Masks.0 (mask.msk): every pixel is masked", "are good and bad exchanged?"),
        (np.ones((31, 40), bool), {}, "Masks.0 (mask.msk): is 31 × 40, Geometry.Imagesize says 40 × 31",
         "take the mask made for this detector"),
        (HALF, {"Slices": [CUT]}, "Slices.0: no valid pixel within CutPosition 25 ± 2", "move the cut"),
        (ALL, {"Masks": [literal.mask(**{"Phi-mode": True, "qStart": 90, "qStop": 95})]},
         "no valid pixel has q from qStart 90 to qStop 95 nm⁻¹", "widen that range"),
    ],
)  # fmt: skip
def test_a_mask_that_cannot_be_right_is_named_with_reason_and_next_step(valid, changes, said, remedy):
    with pytest.raises(MaskError) as caught:
        reduction(valid, **changes)
    assert said in caught.value.message
    assert remedy in caught.value.remedy


def test_a_mask_of_which_nothing_is_made_may_hide_everything():
    cut = {**CUT, "MaskRef": -1}
    assert reduction(NONE, GISAXSmode=True, Slices=[cut]).outputs == [("_cS1", "Slice1")]


@pytest.mark.parametrize("distance", [-800, 0, float("nan"), float("inf"), "far"])
def test_a_distance_that_cannot_be_is_named_with_what_was_given(distance):
    with pytest.raises(ConfigurationError) as caught:
        read_calibration(literal.calibration(Geometry__DedectorDistanceMM=distance))
    (problem,) = caught.value.problems
    assert problem.startswith("Geometry.DedectorDistanceMM: Input should be ")
    assert str(distance) in problem


# While it runs.


def test_a_pixel_that_is_no_number_is_told_by_its_place_unless_it_is_masked():
    made = reduction(HALF)
    made.reduce(with_nan((3, 20)))
    with pytest.raises(ValueError, match=r"2 of its valid pixels are NaN or infinite, the first in row 3, column 4"):
        made.reduce(with_nan((3, 4), (9, 9), (3, 20)))
    cut = reduction(HALF, GISAXSmode=True, Slices=[{**CUT, "CutPosition": 9}])
    cut.reduce(with_nan((3, 0)))
    with pytest.raises(ValueError, match="row 3, column 8"):
        cut.reduce(with_nan((3, 8)))


def written(path: Path, image) -> None:
    fabio.edfimage.EdfImage(image).write(str(path))


def test_the_queue_goes_on_over_everything_that_is_wrong(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    good = np.full(SHAPE, 7, np.int32)
    whole = pilatus_tiff(good)
    (folder / "a_good.tif").write_bytes(whole)
    (folder / "b_half.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "c_empty.tif").write_bytes(b"")
    (folder / "d_text.tif").write_bytes(b"no picture at all" * 9)
    written(folder / "e_nan.edf", with_nan((1, 1)))
    written(folder / "f_other.edf", np.zeros((31, 40), np.int32))
    written(folder / "g_bitten.cbf", good)
    (folder / "z_good.tif").write_bytes(whole)
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # nobody writes into them any more
    queue = PictureQueue(reduction(), folder, patience=0.2)
    queue.start()
    try:
        queue.readdir()
        assert queue.wait_idle(DEADLINE)
        counts, failures = queue.counts(), {Path(one.path).name: one.reason for one in queue.failures()}
    finally:
        queue.abort()
    assert (counts.reduced, counts.failed, counts.restarts) == (2, 6, 0)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["a_good.chi", "z_good.chi"]
    assert "of 4960 bytes of its pixels are missing" in failures["b_half.tif"]
    assert "is 31 × 40, the calibration says 40 × 31: is it of another detector" in failures["f_other.edf"]
    assert "the first in row 1, column 1" in failures["e_nan.edf"]
    for name in ("b_half.tif", "c_empty.tif", "d_text.tif", "g_bitten.cbf"):
        assert failures[name].endswith("; given up after 0.2 s: readdir takes it once it is whole")
    assert failures["c_empty.tif"].startswith("is empty;")
    assert failures["d_text.tif"].startswith("is no image that fabio knows;")
    assert not any("Traceback" in reason for reason in failures.values())
