"""The site file: what it means, and that each mistake is told with its place, reason and remedy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from sisockdaq.detector.layout import gap_mask
from sisockdaq.errors import ConfigurationError
from sisockdaq.site import Site, _site, installed_types, load_site, node_class
from sisockdaq.site._yaml import YamlError, read_value, read_yaml

REPOSITORY = Path(__file__).parents[1]

GOOD = """\
site: test
detector: {model: jungfrau, modules: 2, geometry: detector.poni}
nodes:
  receiver:   {type: detector_receiver, udp: [{port: 50000}, {port: 50001}]}
  integrator: {type: integrator, bins: 1000, unit: q_nm^-1}
"""


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path / "state"))


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, **arguments: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_site(written(folder, text), **arguments)
    return caught.value.problems


def test_a_site_has_names_paths_and_sources(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, GOOD))
    assert (site.site, site.realm, site.base_uri) == ("test", "sisockdaq", "sisockdaq")
    assert site.url == "wss://127.0.0.1:8080/ws"
    assert site.detector is not None
    assert site.detector.shape == (1024, 1024)
    assert site.image_sources() == ["receiver"]
    assert site.result_sources() == ["integrator"]
    assert site.entry("integrator").options == {"bins": 1000, "unit": "q_nm^-1"}
    assert site.resolve_input("detector.poni") == tmp_path / "detector.poni"
    assert site.resolve_output("runs") == tmp_path / "state" / "test" / "data" / "runs"
    assert load_site(tmp_path).site == "test"


def test_data_key_moves_outputs_beside_the_site_file(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, "site: test\ndata: ../elsewhere\n"))
    assert site.resolve_output("runs").resolve() == (tmp_path.parent / "elsewhere" / "runs").resolve()
    assert site.resolve_output("/absolute") == Path("/absolute")


@pytest.mark.parametrize("name", ["demo", "eiger9m"])
def test_the_example_sites_are_valid(name: str) -> None:
    site = load_site(REPOSITORY / "sites" / name, check=None)
    assert site.detector is not None
    geometry = site.detector.geometry
    assert isinstance(geometry, str)
    assert site.resolve_input(geometry).is_file()
    assert len(site.entry("receiver").options["udp"]) == site.detector.streams


def test_the_eiger_site_has_the_sample_s_image() -> None:
    site = load_site(REPOSITORY / "sites" / "eiger9m")
    assert site.detector is not None
    # Shape and packets of the recorded frame, from its description.
    assert (site.detector.shape, site.detector.packets_per_frame) == ((3264, 3106), 72 * 128)
    gaps = gap_mask(site.detector)
    assert gaps is not None
    assert gaps.sum() == 3264 * 3106 - 72 * 256 * 512


def test_stacked_modules_have_no_gap() -> None:
    site = load_site(REPOSITORY / "sites" / "demo")
    assert site.detector is not None
    assert gap_mask(site.detector) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes: {}\n", "line 1: site: is missing"),
        ("site: test\nrouter: {prt: 1}\n", 'line 2: router.prt: unknown key; did you mean "port"?'),
        ("site: test\nrouter:\n  port: 99999\n", "line 3: router.port: 99999 must be less than or equal to 65535"),
        ("site: test\nrouter: {port: abc}\n", 'line 2: router.port: "abc" must be a valid integer'),
        ("site: test\ndetector:\n  model: jungfru\n", 'line 3: detector.model: "jungfru" is not a model; did you mean'),
        ("site: test\nnodes:\n  a: {}\n", "line 3: nodes.a.type: is missing"),
        ("site: test\nnodes:\n  hub: {type: integrator}\n", 'line 2: nodes: "hub" is the name of a part that every'),
        ("site: test\nnodes: {'a b': {type: x}}\n", 'line 2: nodes: "a b" is no name for a part'),
        ("site: te st\n", 'line 1: site: "te st" is not a site'),
        ("site: test\nsite: again\n", "line 2: site: the key stands here twice"),
        ("site: test\nnodes: {a: {type: x, type: y}}\n", "line 2: nodes.a.type: the key stands here twice"),
        ("site: [\n", "line 2: not YAML"),
        ("- site\n", "line 1: a mapping (key: value) is expected"),
        ("", "line 1: site: is missing"),
    ],
)
def test_each_mistake_has_line_key_and_reason(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(f"site.yml, {expected}")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "site: test\nrouter: {port: 0}\nnods: {}\n")
    assert [line.split(": ")[1] for line in found] == ["router.port", "nods"]


class Gauge:
    """Stands for a third party's node class."""

    class Options(BaseModel, extra="forbid"):
        unit: str = Field("mbar", pattern="^(mbar|Pa)$")
        period: float = Field(1.0, gt=0)


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> None:
    known = _site.node_class

    def find(kind: str, group: str = _site.NODES) -> type[Any]:
        return Gauge if kind == "gauge" else known(kind, group)

    monkeypatch.setattr(_site, "node_class", find)


@pytest.mark.usefixtures("gauge")
def test_options_are_checked_by_the_node_s_own_model(tmp_path: Path) -> None:
    text = "site: test\nnodes:\n  a: {type: gauge}\n  b:\n    type: gauge\n    period: 0\n    unt: Pa\n"
    installed = ", ".join(sorted(installed_types()))
    found = problems(tmp_path, text + "  c: {type: gage}\n", check=None)
    assert found == [
        "site.yml, line 6: nodes.b.period: 0 must be greater than 0",
        'site.yml, line 7: nodes.b.unt: unknown key; did you mean "unit"? (one of unit, period)',
        f'site.yml, line 8: nodes.c.type: no type "gage" is installed (installed: {installed})',
    ]


@pytest.mark.usefixtures("gauge")
def test_only_the_named_parts_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, "site: test\nnodes:\n  a: {type: gauge, period: 2}\n  b: {type: gauge, period: 0}\n")
    site = load_site(path, check=["a"])
    assert site.options("a").model_dump() == {"unit": "mbar", "period": 2.0}
    with pytest.raises(ConfigurationError, match=r"nodes\.b\.period"):
        site.options("b")


def test_an_unknown_part_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='did you mean "receiver"'):
        load_site(written(tmp_path, GOOD)).entry("reciever")


def test_a_gateway_that_is_not_installed_is_named(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, "site: test\ngateways: {carrier_pigeon: {port: 5000}}\n"))
    with pytest.raises(ConfigurationError, match=r'gateways\.carrier_pigeon\.type: no type "carrier_pigeon"'):
        site.options("carrier_pigeon")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file") as caught:
        load_site(tmp_path / "absent")
    assert "sisockdaq init" in caught.value.remedy


def test_node_class_names_what_is_installed() -> None:
    with pytest.raises(ConfigurationError, match='did you mean "integrator"'):
        node_class("integratr")


def test_overrides_replace_what_the_file_has(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    site = load_site(path, overrides=["router.port=9000", "nodes.receiver.udp=[{port: 1}]", "site=other"])
    assert (site.site, site.router.port, site.entry("receiver").options["udp"]) == ("other", 9000, [{"port": 1}])
    again = load_site(site.arguments[1], overrides=site.arguments[3::2])
    assert again == site


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("router.port", "--set router.port: not of the form key.path=value"),
        ("router.port=x", 'site.yml, --set: router.port: "x" must be a valid integer'),
        ("rooter.port=1", 'site.yml, --set: rooter: unknown key; did you mean "router"?'),
        ("site.x=1", "--set site.x=1: site holds no keys"),
        ("router=[", "--set router=[: '[' is not a YAML value"),
    ],
)
def test_a_wrong_override_is_told_as_such(tmp_path: Path, override: str, expected: str) -> None:
    assert problems(tmp_path, GOOD, overrides=[override])[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("1:30", "1:30"),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("q_nm^-1", "q_nm^-1"),
        (".inf", float("inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """Expected values: the core schema of the YAML 1.2 specification, chapter 10.3."""
    assert read_value(text) == value


names = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8).filter(
    lambda name: isinstance(read_value(name), str)
)
trees = st.recursive(
    st.integers(-(10**6), 10**6) | names,
    lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(names, trees, min_size=1, max_size=4))
def test_a_document_keeps_its_data_and_knows_every_line(data: dict[str, Any]) -> None:
    text = yaml.safe_dump(data, default_flow_style=False)
    document = read_yaml(text)
    assert document.data == data
    lines = text.splitlines()
    for path, line in document.lines.items():
        if not path[-1].isdigit():
            assert lines[line - 1].lstrip("- '").startswith(path[-1])  # a key such as NO is quoted


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YamlError):
        assert isinstance(read_yaml(text).data, dict)


def test_the_model_describes_every_key() -> None:
    for name, info in Site.model_fields.items():
        assert info.description, name
