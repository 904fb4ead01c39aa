"""A file made by hand that satisfies everybody, and every rule broken in it, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from sisockdaq.errors import ConfigurationError, FileUnreadable
from sisockdaq.nexus.check import READERS, REDUCED, Report, check_file, rules

SHAPE, IMAGES = (6, 10), 3
DETECTOR = "/entry/instrument/detector"
MODULE = f"{DETECTOR}/module"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
BEAM = "/entry/instrument/beam"
VERSIONS = ("earliest", "v110")


def fixed(text: str) -> np.bytes_:
    return np.bytes_(text)


def group(file: h5py.File, path: str, nx_class: str) -> h5py.Group:
    made = file.create_group(path)
    made.attrs["NX_class"] = fixed(nx_class)
    return made


def put(file: h5py.File, path: str, value: object, units: str | None = None, **attributes: object) -> None:
    dataset = file.create_dataset(path, data=fixed(value) if isinstance(value, str) else value)
    if units is not None:
        dataset.attrs["units"] = fixed(units)
    for name, attribute in attributes.items():
        dataset.attrs[name] = fixed(attribute) if isinstance(attribute, str) else attribute


def axis(file: h5py.File, path: str, value: float, vector: list[float], on: str) -> None:
    put(file, path, value, "m", transformation_type="translation", vector=vector, depends_on=on)


def make(folder: Path) -> Path:
    """Write a master and a data file as a careful stranger would."""
    with h5py.File(folder / "a_data_000001.h5", "w", libver=VERSIONS) as file:
        group(file, "entry", "NXentry")
        group(file, "entry/data", "NXdata")
        images = np.arange(IMAGES * 60, dtype=np.uint16).reshape(IMAGES, *SHAPE)
        file.create_dataset("entry/data/data", data=images, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4"))
    path = folder / "a_master.h5"
    with h5py.File(path, "w", libver=VERSIONS) as file:
        for name, nx_class in (
            ("/entry", "NXentry"),
            ("/entry/data", "NXdata"),
            ("/entry/sample", "NXsample"),
            ("/entry/source", "NXsource"),
            ("/entry/instrument", "NXinstrument"),
            (BEAM, "NXbeam"),
            (DETECTOR, "NXdetector"),
            (SPECIFIC, "NXcollection"),
            (MODULE, "NXdetector_module"),
            (f"{DETECTOR}/transformations", "NXtransformations"),
            ("/entry/MX", "NXcollection"),
        ):
            group(file, name, nx_class)
        file["/entry/data/data_000001"] = h5py.ExternalLink("a_data_000001.h5", "/entry/data/data")
        texts = {
            "/entry/definition": "NXmx",
            "/entry/start_time": "2026-01-02T03:04:05Z",
            "/entry/end_time_estimated": "2026-01-02T03:05:05.5Z",
            "/entry/sample/name": "lysozyme",
            "/entry/sample/depends_on": ".",
            "/entry/source/name": "SLS",
            "/entry/instrument/name": "X06SA",
            "/entry/instrument/time_zone": "+01:00",
            f"{BEAM}/profile": "Gaussian",
            f"{DETECTOR}/sensor_material": "Si",
            f"{DETECTOR}/description": "JUNGFRAU",
            f"{DETECTOR}/depends_on": f"{DETECTOR}/transformations/translation",
        }
        for name, text in texts.items():
            put(file, name, text)
        numbers: dict[str, tuple[object, str | None]] = {
            f"{BEAM}/incident_wavelength": (1.0, "angstrom"),
            f"{BEAM}/total_flux": (1e12, "Hz"),
            f"{BEAM}/incident_beam_size": ([1e-5, 1e-5], "m"),
            f"{DETECTOR}/sensor_thickness": (0.32, "mm"),
            f"{DETECTOR}/distance": (0.2, "m"),
            f"{DETECTOR}/count_time": (0.001, "s"),
            f"{DETECTOR}/beam_center_x": (5.0, "pixel"),
            f"{DETECTOR}/beam_center_y": (3.0, "pixel"),
            f"{DETECTOR}/x_pixel_size": (75e-6, "m"),
            f"{DETECTOR}/y_pixel_size": (75e-6, "m"),
            f"{DETECTOR}/bit_depth_readout": (16, None),
            f"{DETECTOR}/pixel_mask": (np.zeros(SHAPE, np.uint32), None),
            f"{SPECIFIC}/nimages": (IMAGES, None),
            f"{SPECIFIC}/ntrigger": (1, None),
            f"{SPECIFIC}/x_pixels_in_detector": (SHAPE[1], None),
            f"{SPECIFIC}/y_pixels_in_detector": (SHAPE[0], None),
            f"{MODULE}/data_origin": (np.array([0, 0]), None),
            f"{MODULE}/data_size": (np.array(SHAPE), None),
            "/entry/MX/nPeaks": (np.array([0, 2, 1], np.uint32), None),
            "/entry/MX/peakXPosRaw": (np.zeros((IMAGES, 2)), None),
            "/entry/MX/peakYPosRaw": (np.zeros((IMAGES, 2)), None),
            "/entry/MX/peakTotalIntensity": (np.zeros((IMAGES, 2)), None),
        }
        for name, (value, units) in numbers.items():
            put(file, name, value, units)
        file[f"{SPECIFIC}/pixel_mask"] = file[f"{DETECTOR}/pixel_mask"]
        axis(file, f"{DETECTOR}/transformations/translation", 0.2, [0, 0, 1], ".")
        on = f"{DETECTOR}/transformations/translation"
        axis(file, f"{MODULE}/module_offset", 0.0, [1, 0, 0], on)
        axis(file, f"{MODULE}/fast_pixel_direction", 75e-6, [-1, 0, 0], f"{MODULE}/module_offset")
        axis(file, f"{MODULE}/slow_pixel_direction", 75e-6, [0, -1, 0], f"{MODULE}/module_offset")
    return path


def without(*paths: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for path in paths:
            del file[path]

    return change


def instead(path: str, value: object, units: str | None = None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]
        put(file, path, value, units)

    return change


def attribute(path: str, name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if value is None:
            del file[path].attrs[name]
        else:
            file[path].attrs[name] = value

    return change


def images(dataset: str, **how: object) -> Callable[[h5py.File], None]:
    """Put images into the master itself."""

    def change(file: h5py.File) -> None:
        file.create_dataset(f"/entry/data/{dataset}", data=np.zeros((IMAGES, *SHAPE), np.uint16), **how)

    return change


def both(*changes: Callable[[h5py.File], None]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for each in changes:
            each(file)

    return change


def chunked_mask(file: h5py.File) -> None:
    del file[f"{SPECIFIC}/pixel_mask"], file[f"{DETECTOR}/pixel_mask"]
    mask = file.create_dataset(f"{DETECTOR}/pixel_mask", data=np.zeros(SHAPE, np.uint32), chunks=SHAPE)
    file[f"{SPECIFIC}/pixel_mask"] = mask


def narrow_mask(file: h5py.File) -> None:
    del file[f"{SPECIFIC}/pixel_mask"], file[f"{DETECTOR}/pixel_mask"]
    put(file, f"{DETECTOR}/pixel_mask", np.zeros(SHAPE, np.uint8))
    file[f"{SPECIFIC}/pixel_mask"] = file[f"{DETECTOR}/pixel_mask"]


def virtual(source: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["/entry/data/data_000001"]
        layout = h5py.VirtualLayout((IMAGES, *SHAPE), np.uint16)
        layout[:] = h5py.VirtualSource(source, "/entry/data/data", (IMAGES, *SHAPE), np.uint16)
        file["/entry/data"].create_virtual_dataset("data", layout)

    return change


def sparse(file: h5py.File) -> None:
    del file["/entry/data/data_000001"]
    made = file.create_dataset("/entry/data/data_000001", (IMAGES, *SHAPE), np.uint16, chunks=(1, *SHAPE))
    made[0] = 1


def later_nxdata(file: h5py.File) -> None:
    group(file, "/entry/zoom", "NXdata")


GONE = {
    "entry.start_time": "/entry/start_time",
    "entry.end_time_estimated": "/entry/end_time_estimated",
    "entry.definition": "/entry/definition",
    "sample": "/entry/sample",
    "sample.name": "/entry/sample/name",
    "sample.depends_on": "/entry/sample/depends_on",
    "source": "/entry/source",
    "source.name": "/entry/source/name",
    "instrument": "/entry/instrument",
    "instrument.name": "/entry/instrument/name",
    "instrument.time_zone": "/entry/instrument/time_zone",
    "beam": BEAM,
    "beam.incident_wavelength": f"{BEAM}/incident_wavelength",
    "beam.total_flux": f"{BEAM}/total_flux",
    "beam.incident_beam_size": f"{BEAM}/incident_beam_size",
    "beam.profile": f"{BEAM}/profile",
    "detector": DETECTOR,
    "detector.sensor_material": f"{DETECTOR}/sensor_material",
    "detector.sensor_thickness": f"{DETECTOR}/sensor_thickness",
    "detector.description": f"{DETECTOR}/description",
    "detector.distance": f"{DETECTOR}/distance",
    "detector.count_time": f"{DETECTOR}/count_time",
    "detector.beam_center_x": f"{DETECTOR}/beam_center_x",
    "detector.beam_center_y": f"{DETECTOR}/beam_center_y",
    "detector.pixel_mask": f"{DETECTOR}/pixel_mask",
    "detector.bit_depth_readout": f"{DETECTOR}/bit_depth_readout",
    "detector.x_pixel_size": f"{DETECTOR}/x_pixel_size",
    "detector.y_pixel_size": f"{DETECTOR}/y_pixel_size",
    "module": MODULE,
    "module.data_origin": f"{MODULE}/data_origin",
    "module.data_size": f"{MODULE}/data_size",
    "module.fast_pixel_direction": f"{MODULE}/fast_pixel_direction",
    "module.slow_pixel_direction": f"{MODULE}/slow_pixel_direction",
    "entry": "/entry",
    "data": "/entry/data",
    "images": "/entry/data/data_000001",
    "specific": SPECIFIC,
    "specific.nimages": f"{SPECIFIC}/nimages",
    "specific.pixels": f"{SPECIFIC}/x_pixels_in_detector",
    "mask.there": f"{SPECIFIC}/pixel_mask",
    "spots": "/entry/MX/peakYPosRaw",
}
"""Rules that are broken by taking something away."""

WRONG: list[tuple[str, Callable[[h5py.File], None], str]] = [
    ("entry.start_time", instead("/entry/start_time", "yesterday"), "NXmx"),
    ("entry.definition", instead("/entry/definition", "NXsas"), "nxmx"),
    ("entry", attribute("/entry", "NX_class", fixed("NXsubentry")), "NXmx"),
    ("sample.name", instead("/entry/sample/name", 7), "NXmx"),
    ("beam.incident_wavelength", instead(f"{BEAM}/incident_wavelength", 1.0), "nxmx"),
    ("beam.incident_wavelength", instead(f"{BEAM}/incident_wavelength", "one", "angstrom"), "NXmx"),
    ("detector.sensor_thickness", instead(f"{DETECTOR}/sensor_thickness", 0.3, "eV"), "NXmx"),
    ("module.data_size", instead(f"{MODULE}/data_size", np.array([6.0, 10.0])), "NXmx"),
    ("module.fast_pixel_direction", attribute(f"{MODULE}/fast_pixel_direction", "vector", None), "nxmx"),
    ("module.slow_pixel_direction", attribute(f"{MODULE}/slow_pixel_direction", "transformation_type", None), "nxmx"),
    ("module.slow_pixel_direction", attribute(f"{MODULE}/slow_pixel_direction", "depends_on", None), "nxmx"),
    ("chains", attribute(f"{MODULE}/module_offset", "depends_on", fixed("/entry/nowhere")), "nxmx"),
    ("chains", attribute(f"{MODULE}/module_offset", "depends_on", fixed("fast_pixel_direction")), "NXmx"),
    ("links", both(without("/entry/data/data_000001"), lambda file: file.__setitem__(
        "/entry/data/data_000001", h5py.ExternalLink("gone.h5", "/entry/data/data"))), "fabio"),
    ("sizes", instead(f"{MODULE}/data_size", np.array([60, 100])), "NXmx"),
    ("images", both(without("/entry/data/data_000001"), lambda file: put(
        file, "/entry/data/data_000001", np.zeros(SHAPE))), "NXmx"),
    ("specific.nimages", instead(f"{SPECIFIC}/nimages", 0), "neggia"),
    ("specific.nimages", instead(f"{SPECIFIC}/nimages", IMAGES + 1), "neggia"),
    ("mask.contiguous", chunked_mask, "neggia"),
    ("mask.type", narrow_mask, "Albula"),
    ("mask.one", instead(f"{SPECIFIC}/pixel_mask", np.zeros(SHAPE, np.uint32)), "Albula"),
    ("data.virtual", virtual("a_data_000001.h5"), "neggia"),
    ("data.linked", virtual("a_data_000001.h5"), "Albula"),
    ("data.sources", virtual("gone.h5"), "CrystFEL"),
    ("data.numbered", images("data_000003"), "neggia"),
    ("data.twice", images("data"), "fabio"),
    ("data.names", images("data_offset"), "fabio"),
    ("data.packing", both(without("/entry/data/data_000001"), images("data_000001", compression="gzip")), "neggia"),
    ("data.whole", sparse, "durin"),
    ("data.last", later_nxdata, "durin"),
    ("data.first", lambda file: group(file, "/entry/azint", "NXdata"), "nxmx"),
    ("file.classes", lambda file: file.create_group("/entry/notes"), "durin"),
    ("file.attributes", attribute("/entry", "note", "of any length"), "durin"),
    ("file.texts", lambda file: file.create_dataset("/entry/note", data="of any length"), "Albula"),
    ("spots", instead("/entry/MX/nPeaks", np.array([0, 3, 1], np.uint32)), "CrystFEL"),
    ("spots", instead("/entry/MX/nPeaks", np.zeros(IMAGES)), "CrystFEL"),
    ("spots", instead("/entry/MX/peakXPosRaw", np.zeros(IMAGES)), "CrystFEL"),
]  # fmt: skip


def broken(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_a_good_file_is_good_for_everybody(tmp_path: Path) -> None:
    report = check_file(make(tmp_path))
    assert report.findings == []
    assert report.passed == ("NXmx", *READERS)
    assert report.about == "master file, 3 images of 6 × 10 uint16 (bslz4) in 1 file"
    data = check_file(tmp_path / "a_data_000001.h5")
    assert (data.findings, data.passed) == ([], READERS)


@pytest.mark.parametrize("rule", GONE)
def test_what_is_missing_is_named(tmp_path: Path, rule: str) -> None:
    path = make(tmp_path)
    with h5py.File(path, "r+", libver=VERSIONS) as file:
        del file[GONE[rule]]
    found = [each for each in check_file(path).findings if each.rule == rule]
    assert found
    assert "missing" in found[0].what


@pytest.mark.parametrize(("rule", "change", "reader"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_named_and_for_whom(
    tmp_path: Path, rule: str, change: Callable[[h5py.File], None], reader: str
) -> None:
    path = make(tmp_path)
    with h5py.File(path, "r+", libver=VERSIONS) as file:
        change(file)
    report = check_file(path)
    assert rule in broken(report)
    assert reader in report.failed
    only = check_file(path, [reader])
    assert only.asked == (reader,)
    assert rule in broken(only)


def test_the_newest_superblock_is_named(tmp_path: Path) -> None:
    path = make(tmp_path)
    with h5py.File(path) as old, h5py.File(tmp_path / "new.h5", "w", libver="latest") as new:
        old.copy("/entry", new, expand_external=False)
    report = check_file(tmp_path / "new.h5")
    assert broken(report) == {"file.superblock"}
    assert report.failed == ("neggia", "Albula")


def test_every_rule_is_broken_by_a_test() -> None:
    ours = {rule.key for rule in rules() if not set(rule.by) & set(REDUCED)}
    elsewhere = {"file.superblock", "epochs"}  # the latter in tests/nexus/test_epochs.py
    assert ours == {*GONE, *(rule for rule, _, _ in WRONG), *elsewhere}


def test_a_data_file_is_told_from_a_master(tmp_path: Path) -> None:
    make(tmp_path)
    with h5py.File(tmp_path / "a_data_000001.h5", "r+", libver=VERSIONS) as file:
        file["/entry/data"].attrs["note"] = "of any length"
    report = check_file(tmp_path / "a_data_000001.h5")
    assert report.about.startswith("data file, 3 images")
    assert broken(report) == {"file.attributes"}


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="does not exist"):
        check_file(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(FileUnreadable, match="no HDF5 file"):
        check_file(tmp_path / "text.h5")
    with pytest.raises(ConfigurationError, match='"XDS" is not known'):
        check_file(make(tmp_path), ["XDS"])
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    assert "entry" in broken(check_file(tmp_path / "empty.h5"))
