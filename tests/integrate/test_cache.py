"""Maps on disk: found again only for the same question, and never believed when damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyFAI.detectors import detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.integrate import Integrator, load_geometry
from sisockdaq.integrate import _places as places
from sisockdaq.integrate._arrayfile import pack_arrays, read_arrays, unpack_arrays
from sisockdaq.integrate.cache import MapCache, default_cache_root, map_key, prepare_map
from sisockdaq.integrate.geometry import locate_pixels
from sisockdaq.integrate.maps import build_map

SHAPE = (40, 60)
PLACE = {"distance": 0.1, "poni1": 0.0022, "poni2": 0.0031, "rot1": 0.1, "wavelength": 1e-10}
OPTIONS: dict[str, Any] = {"unit": "q_nm^-1", "split": "no", "bins": 30, "solid_angle": True, "polarization": None}
IMAGE = np.random.default_rng(0).poisson(9, SHAPE).astype(np.uint16)


def integrator(cache: Any, **options: Any) -> Integrator:
    return Integrator(PLACE, **{"shape": SHAPE, "pixel_size": 75e-6, "bins": 70, "cache": cache, **options})


@pytest.fixture
def no_building(monkeypatch: pytest.MonkeyPatch) -> Any:
    def forbid() -> None:
        def never(*_: Any, **__: Any) -> None:
            raise AssertionError("the map was computed")

        monkeypatch.setattr(places, "build_map", never)
        monkeypatch.setattr(places, "locate_pixels", never)

    return forbid


@pytest.mark.parametrize(
    ("split", "bins", "layout"),
    [("no", 70, "whole"), ("bbox", 12, "pairs"), ("full", 120, "triples"), ("full", 600, "triples")],
)
def test_a_stored_map_gives_the_same_bits(tmp_path: Path, no_building: Any, split: str, bins: int, layout: str) -> None:
    options = {"split": split, "bins": bins, "mask": np.eye(*SHAPE), "error_model": "poisson", "flat": IMAGE + 1.0}
    first = integrator(tmp_path / "maps", **options)
    assert first.bin_map.layout == layout
    expected = first.integrate(IMAGE)
    no_building()
    again = integrator(tmp_path / "maps", **options)
    result = again.integrate(IMAGE)
    for name in ("axis", "intensity", "sigma", "sum_signal", "sum_normalization", "count"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert again.pixels_used == first.pixels_used
    with pytest.raises(AssertionError, match="the map was computed"):
        integrator(tmp_path / "maps", **{**options, "bins": bins + 1})


def test_sectors_have_maps_of_their_own(tmp_path: Path, no_building: Any) -> None:
    from sisockdaq.integrate.sectors import Sector

    sectors = {"up": Sector(azimuth_range=(20, 160)), "down": Sector(azimuth_range=(-160, -20))}
    first = integrator(tmp_path, sectors=sectors).integrate_all(IMAGE)
    no_building()
    again = integrator(tmp_path, sectors=sectors).integrate_all(IMAGE)
    assert len(list(tmp_path.iterdir())) == 3
    for name in sectors:
        np.testing.assert_array_equal(again[name].sum_signal, first[name].sum_signal)


def test_whatever_decides_a_map_is_in_its_key() -> None:
    def key(changed: dict[str, Any] | None = None, pyfai: Any = None, **options: Any) -> str:
        made = pyfai or load_geometry({**PLACE, **(changed or {})}, shape=SHAPE, pixel_size=75e-6)
        return map_key(made, **{**OPTIONS, **options})

    eiger = AzimuthalIntegrator(0.1, detector=detector_factory("Eiger2_500k"), wavelength=1e-10)
    same_shape = AzimuthalIntegrator(
        0.1, detector=detector_factory("Eiger2_500k", {"orientation": 2}), wavelength=1e-10
    )
    odd, other_odd = (AzimuthalIntegrator(0.1, detector=detector_factory("Xpad_flat"), wavelength=1e-10) for _ in "12")
    corners = other_odd.detector.get_pixel_corners().copy()
    corners[3, 4] += 1e-6
    other_odd.detector.set_pixel_corners(corners)
    disc = load_geometry(PLACE, shape=SHAPE, pixel_size=75e-6)
    disc.setChiDiscAtZero()
    mask = np.eye(*SHAPE, dtype=np.bool_)
    keys = [
        key(),
        *(key({name: value + 1e-12}) for name, value in PLACE.items()),
        key(pyfai=load_geometry(PLACE, shape=SHAPE, pixel_size=76e-6)),
        key(pyfai=load_geometry(PLACE, shape=(60, 40), pixel_size=75e-6)),
        key(pyfai=eiger),
        key(pyfai=same_shape),
        key(pyfai=odd),
        key(pyfai=other_odd),
        key(pyfai=disc),
        key(unit="2th_deg"),
        key(split="bbox"),
        key(bins=31),
        key(solid_angle=False),
        key(polarization=0.9),
        key(radial_range=(1.0, 2.0)),
        key(azimuth_range=(1.0, 2.0)),
        key(mask=mask),
        key(mask=~mask),
        key(weight=mask.astype(np.float32)),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def damage_end(data: bytearray) -> bytearray:
    return data[: len(data) // 2]


def damage_bit(data: bytearray) -> bytearray:
    data[len(data) // 2] ^= 1
    return data


def replace_by_nothing(data: bytearray) -> bytearray:
    return bytearray()


def replace_by_text(data: bytearray) -> bytearray:
    return bytearray(b"not a map")


@pytest.mark.parametrize("damage", [damage_end, damage_bit, replace_by_nothing, replace_by_text])
def test_a_damaged_file_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any) -> None:
    expected = integrator(tmp_path, split="bbox").integrate(IMAGE)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(bytearray(whole)))
    result = integrator(tmp_path, split="bbox").integrate(IMAGE)
    np.testing.assert_array_equal(result.intensity, expected.intensity)
    assert "cannot be used" in caplog.text
    assert path.stat().st_size == len(whole)


def test_a_file_gives_back_what_was_written_and_notices_each_changed_bit() -> None:
    arrays: dict[str, Any] = {"a": np.arange(7, dtype=np.float32), "none": np.empty((0, 2)), "b": np.eye(3)}
    words = pack_arrays(arrays)
    for name, array in unpack_arrays(words.copy()).items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])
    for bit in range(8 * words.nbytes):
        damaged = words.copy()
        damaged.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"checksum|kind"):
            unpack_arrays(damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"index": np.full(SHAPE[0] * SHAPE[1], 9999, np.uint16)},
        {"index": np.zeros(4, np.uint16)},
        {"axis": np.zeros(30, np.float32)},
        {"side_pixel": np.array([99999]), "side_first": np.zeros(1, np.int32), "side_start": np.array([0, 0])},
        {"about": np.frombuffer(b'{"layout": "other"}', np.uint8)},
        {"about": np.frombuffer(b"[]", np.uint8)},
    ],
)
def test_a_file_whose_parts_do_not_fit_is_not_believed(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = MapCache(tmp_path)
    pixels = locate_pixels(load_geometry(PLACE, shape=SHAPE, pixel_size=75e-6), "q_nm^-1", split="no")
    cache.store("map", prepare_map(build_map(pixels, None, bins=30)))
    assert cache.load("map") is not None
    arrays = read_arrays(tmp_path / "map.map")
    (tmp_path / "map.map").write_bytes(pack_arrays({**arrays, **change}).tobytes())
    assert cache.load("map") is None
    assert not (tmp_path / "map.map").exists()


def test_the_folder_stays_below_its_limit(tmp_path: Path) -> None:
    pixels = locate_pixels(load_geometry(PLACE, shape=SHAPE, pixel_size=75e-6), "q_nm^-1", split="no")
    prepared = prepare_map(build_map(pixels, None, bins=30))
    MapCache(tmp_path).store("a", prepared)
    size = (tmp_path / "a.map").stat().st_size
    abandoned = tmp_path / "never-finished.part"
    abandoned.touch()
    cache = MapCache(tmp_path, limit=3 * size)
    for age, name in enumerate("bc"):
        cache.store(name, prepared)
        os.utime(tmp_path / f"{name}.map", (1000 + age, 1000 + age))
    os.utime(tmp_path / "a.map", (999, 999))
    os.utime(abandoned, (999, 999))
    assert cache.load("a") is not None  # used again: b is the oldest now
    cache.store("d", prepared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.map", "c.map", "d.map"]
    MapCache(tmp_path / "small", limit=100).store("a", prepared)
    assert not (tmp_path / "small").exists()


def test_a_folder_that_cannot_be_written_to_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    result = integrator(tmp_path / "file" / "maps").integrate(IMAGE)
    np.testing.assert_array_equal(result.intensity, integrator(False).integrate(IMAGE).intensity)
    assert "cannot be" in caplog.text


def test_the_users_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_root() == tmp_path / "sisockdaq" / "maps"
    integrator(True).integrate(IMAGE)
    assert len(list((tmp_path / "sisockdaq" / "maps").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_root() == Path.home() / ".cache" / "sisockdaq" / "maps"
