"""Files of integrated frames: ours satisfy their definitions, and every rule of those is broken, one at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sisockdaq.nexus.check import REDUCED, Report, check_file, rules
from sisockdaq.nexus.check._azint import AZINT_ROLES
from sisockdaq.nexus.check._cansas import CANSAS_ROLES
from sisockdaq.nexus.reduced import AzintFile, CansasFile
from tests.nexus.reduced import content

DEFINITION = {"azint1d": "NXazint1d", "azint2d": "NXazint2d", "cansas": "NXcanSAS"}
ROLES = {"azint1d": AZINT_ROLES, "azint2d": AZINT_ROLES, "cansas": CANSAS_ROLES}
RULES = {rule.key: rule for rule in rules() if set(rule.by) & set(REDUCED)}

OPTIONAL = {"data.radial_axis_edges", "data.norm", "data.azimuthal_axis_edges", "monitor_applied"}
CUSTOM = {"lengths", "monitor.length", "energy", "sasdata.axes", "errors", "inside"}
"""What is broken otherwise than by taking something away."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of each kind."""
    return {kind: make(tmp_path_factory.mktemp("good"), kind) for kind in DEFINITION}


def make(folder: Path, kind: str) -> Path:
    """Write a file with everything that the definitions of its kind know."""
    path = folder / "run.h5"
    if kind == "cansas":
        with CansasFile(path, content.curve(), content.reduction()) as cansas:
            values = content.intensity(content.curve(), 0, 3)
            cansas.append(content.times(0, 3), values, values)
        with h5py.File(path, "r+") as file:
            for name, nx_class, field in (
                ("sasdetector", "NXdetector", "name"),
                ("sasaperture", "NXaperture", "shape"),
            ):
                group = file.create_group(f"/entry/sasinstrument/{name}")
                group.attrs.update({"NX_class": nx_class, "canSAS_class": f"SAS{name[3:]}"})
                group[field] = "slit"
        return path
    product = content.curve() if kind == "azint1d" else content.cake()
    with AzintFile(path, [product], content.reduction()) as azint:
        values = content.intensity(product, 0, 3)
        azint.append(content.times(0, 3), values, values, monitor=np.ones(3))
    return path


def place(key: str) -> tuple[str, str]:
    """Return the path that a rule's key means in a file of ours, and the attribute."""
    kind, _, rest = key.partition(".")
    if rest.startswith("@") or "@" in kind:
        return "/entry", key.partition("@")[2]
    item, _, attribute = rest.partition("@")
    role, _, field = item.rstrip("?").partition(".")
    roles, path = ROLES[kind], []
    if role not in roles:
        return f"/entry/{role}", attribute
    while role:
        path.insert(0, roles[role].name)
        role = roles[role].parent
    return "/entry/" + "/".join([*path, *([field] if field else [])]), attribute


def take_away(path: Path, key: str) -> str:
    where, attribute = place(key)
    with h5py.File(path, "r+") as file:
        if attribute:
            del file[where].attrs[attribute]
            return f"{where}/@{attribute}"
        del file[where]
    return where


def is_gone_rule(key: str) -> bool:
    rest = key.partition(".")[2]
    return rest not in CUSTOM and rest.partition("@")[0] not in OPTIONAL


GONE = [key for key in RULES if is_gone_rule(key)]


def broken(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


@pytest.mark.parametrize("kind", DEFINITION)
def test_ours_are_good(good: dict[str, Path], kind: str) -> None:
    report = check_file(good[kind])
    assert report.findings == []
    assert report.passed == (DEFINITION[kind],)
    shape = "12 × 40" if kind == "azint2d" else "40"
    assert report.about == f"{DEFINITION[kind]}: 3 frames of {shape} bins"


@pytest.mark.parametrize("key", GONE)
def test_what_is_missing_is_named_by_its_path(tmp_path: Path, good: dict[str, Path], key: str) -> None:
    kind = key.partition(".")[0].partition("@")[0]
    path = shutil.copy(good[kind], tmp_path / "run.h5")
    where = take_away(path, key)
    report = check_file(path, [DEFINITION[kind]])
    found = [finding for finding in report.findings if finding.rule == key]
    assert [finding.where for finding in found] == [where]
    assert "is missing" in found[0].what
    required = RULES[key].by[DEFINITION[kind]] == "required"
    assert report.failed == ((DEFINITION[kind],) if required else ())


def replaced(path: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attributes = dict(file[path].attrs)
        del file[path]
        file[path] = value
        file[path].attrs.update(attributes)

    return change


def attribute(path: str, name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[path].attrs.__setitem__(name, value)


def outside(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as made:
        file.copy("/entry/sasdata/Q", made, "Q")
    del file["/entry/sasdata/Q"]
    file["/entry/sasdata/Q"] = h5py.ExternalLink("other.h5", "/Q")


MONO = "/entry/instrument/monochromator"

WRONG: list[tuple[str, Callable[[h5py.File], None]]] = [
    ("azint1d.definition", replaced("/entry/definition", "NXmonopd")),
    ("azint1d.solid_angle_applied", replaced("/entry/solid_angle_applied", "yes")),
    ("azint1d.monitor_applied", replaced("/entry/monitor_applied", 2)),
    ("azint1d.instrument.name", replaced("/entry/instrument/name", "")),
    ("azint1d.monochromator.wavelength", replaced(f"{MONO}/wavelength", np.nan)),
    ("azint1d.monochromator.wavelength", attribute(f"{MONO}/wavelength", "units", "m")),
    ("azint2d.monochromator.energy", replaced(f"{MONO}/energy", "12 keV")),
    ("azint1d.energy", replaced(f"{MONO}/energy", 12400.0)),
    ("azint2d.energy", replaced(f"{MONO}/energy", 12400.0)),
    ("azint1d.reduction.date", replaced("/entry/reduction/date", "Monday")),
    ("azint1d.data@signal", attribute("/entry/data", "signal", "radial_axis")),
    ("azint1d.data@axes", attribute("/entry/data", "axes", ["radial_axis"])),
    ("azint2d.data@interpretation", attribute("/entry/data", "interpretation", "spectrum")),
    ("azint1d.data.I", replaced("/entry/data/I", np.zeros(40))),
    ("azint2d.data.I", replaced("/entry/data/I", np.zeros((12, 40)))),
    ("azint1d.data.I@units", attribute("/entry/data/I", "units", "counts")),
    ("azint1d.data.radial_axis@long_name", attribute("/entry/data/radial_axis", "long_name", "r")),
    ("azint1d.data.radial_axis@units", attribute("/entry/data/radial_axis", "units", "deg")),
    ("azint2d.data.azimuthal_axis@units", attribute("/entry/data/azimuthal_axis", "units", "1/nm")),
    ("azint2d.data.azimuthal_axis_edges@long_name", attribute("/entry/data/azimuthal_axis_edges", "long_name", "e")),
    ("azint1d.data.radial_axis_edges@long_name", attribute("/entry/data/radial_axis_edges", "long_name", "edges")),
    ("azint2d.data.radial_axis_edges@long_name", attribute("/entry/data/radial_axis_edges", "long_name", "edges")),
    ("azint1d.data.norm@long_name", attribute("/entry/data/norm", "long_name", "norm")),
    ("azint2d.data.norm@long_name", attribute("/entry/data/norm", "long_name", "norm")),
    ("azint1d.data.norm@units", attribute("/entry/data/norm", "units", "pixel")),
    ("azint2d.data.norm@units", attribute("/entry/data/norm", "units", "pixel")),
    ("azint2d.monitor_applied", replaced("/entry/monitor_applied", 0.5)),
    ("azint1d.lengths", replaced("/entry/data/radial_axis", np.zeros(41))),
    ("azint1d.lengths", replaced("/entry/data/I_errors", np.zeros((2, 40)))),
    ("azint2d.lengths", replaced("/entry/data/azimuthal_axis_edges", np.zeros(12))),
    ("azint2d.lengths", replaced("/entry/data/norm", np.zeros(40))),
    ("azint1d.monitor.length", replaced("/entry/monitor/data", np.zeros(4))),
    ("azint2d.monitor.length", replaced("/entry/monitor/data", np.zeros(4))),
    ("cansas.definition", replaced("/entry/definition", "NXsas")),
    ("cansas@version", attribute("/entry", "version", "2.0")),
    ("cansas.sasdata@canSAS_class", attribute("/entry/sasdata", "canSAS_class", "SASdat")),
    ("cansas.sasdata.axes", attribute("/entry/sasdata", "I_axes", ["Q"])),
    ("cansas.sasdata.axes", attribute("/entry/sasdata", "Q_indices", [2])),
    ("cansas.sasdata.axes", attribute("/entry/sasdata", "Q_indices", [0])),
    ("cansas.sasdata.axes", attribute("/entry/sasdata", "Q_indices", [1.0])),
    ("cansas.sasdata@mask", attribute("/entry/sasdata", "mask", "Maske")),
    ("cansas.sasdata@mask", replaced("/entry/sasdata/Mask", np.zeros(7, bool))),
    ("cansas.sasdata.Q@units", attribute("/entry/sasdata/Q", "units", "A-1")),
    ("cansas.errors", replaced("/entry/sasdata/Idev", np.zeros((3, 41)))),
    ("cansas.errors", attribute("/entry/sasdata/Idev", "units", "1/cm")),
    ("cansas.errors", attribute("/entry/sasdata/I", "uncertainties", "sigma")),
    ("cansas.inside", outside),
    ("cansas@default", attribute("/entry", "default", "data")),
]


@pytest.mark.parametrize(("key", "change"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_named(
    tmp_path: Path, good: dict[str, Path], key: str, change: Callable[[h5py.File], None]
) -> None:
    kind = key.partition(".")[0].partition("@")[0]
    path = shutil.copy(good[kind], tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    report = check_file(path, [DEFINITION[kind]])
    assert key in broken(report)
    required = any(DEFINITION[kind] in finding.required_by for finding in report.findings)
    assert report.failed == ((DEFINITION[kind],) if required else ())


def test_every_rule_is_broken_by_a_test() -> None:
    assert set(RULES) == {*GONE, *(key for key, _ in WRONG)}


def test_products_side_by_side_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with AzintFile(path, [content.curve(), content.cake()], content.reduction()):
        pass
    with h5py.File(path, "r+") as file:
        del file["/entry/cake/data/radial_axis"]
    report = check_file(path)
    assert [finding.where for finding in report.findings] == ["/entry/cake/data/radial_axis"]
    assert (report.passed, report.failed) == (("NXazint1d",), ("NXazint2d",))
    assert report.about == "NXazint2d: 0 frames of 12 × 40 bins; NXazint1d: 0 frames of 40 bins"


def test_integrated_frames_are_no_master(good: dict[str, Path]) -> None:
    assert "NXmx" in check_file(good["azint1d"], ["NXmx"]).failed
    assert check_file(good["azint1d"], ["nxcansas"]).failed == ("NXcanSAS",)
