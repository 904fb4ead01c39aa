"""The files of a folder as fields: joined over files, opened by need, problems named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, ReplyInvalid
from sisockdaq.textfiles import Folder, Form, Named
from sisockdaq.textfiles import file as file_module
from sisockdaq.textfiles import folder as module
from tests.textfiles.test_file import write

REAL = Path(__file__).parents[3] / "shared" / "data" / "apex-weather"


def spanned(name: str) -> Named | None:
    """``<field>_<start>_<end>``"""
    field, start, end = name.split("_")
    return Named(field, Form(), (float(start), float(end)))


def plain(name: str) -> Named | None:
    return Named(name.removesuffix(".dat"), Form()) if name.endswith(".dat") else None


def looked(root: Path, named: Any = plain, **more: Any) -> Folder:
    folder = Folder(root, named, **more)
    folder.look()
    return folder


def pairs(folder: Folder, field: str, start: float, end: float, **limits: Any) -> list[tuple[float, float]]:
    samples, problems = folder.read(field, start, end, **limits)
    assert problems == []
    return list(zip(samples.t.tolist(), samples.values.tolist(), strict=True))


chunks = st.lists(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 999)), max_size=20), max_size=5)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks, st.integers(-5, 120), st.integers(1, 120))
def test_many_files_are_one_field(tmp_path_factory: pytest.TempPathFactory, files: Any, start: int, width: int) -> None:
    root = tmp_path_factory.mktemp("folder")
    everything: dict[float, float] = {}
    for i, samples in enumerate(files):
        shifted = [(10 * i + t, v) for t, v in samples]  # overlaps the next file
        (root / f"a_{10 * i}_{10 * i + 19}").write_text("".join(f"{t} {v}\n" for t, v in shifted))
        everything.update(shifted)
    folder = looked(root, spanned)
    expected = sorted((t, v) for t, v in everything.items() if start <= t < start + width)
    assert pairs(folder, "a", start, start + width) == expected
    if expected:
        assert folder.holds("a", start, start + width)


@pytest.fixture
def opened_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    seen: list[str] = []
    real = Path.open

    def opening(self: Path, *args: Any, **more: Any) -> Any:
        seen.append(self.name)
        return real(self, *args, **more)

    monkeypatch.setattr(Path, "open", opening)
    return seen


def test_only_files_that_an_interval_meets_are_opened(tmp_path: Path, opened_files: list[str]) -> None:
    for day in range(30):
        (tmp_path / f"a_{100 * day}_{100 * day + 99}").write_text(f"{100 * day} 1\n{100 * day + 50} 2\n")
    opened_files.clear()
    folder = looked(tmp_path, spanned)
    assert opened_files == ["a_2900_2999"]  # the newest, which may grow
    opened_files.clear()
    assert pairs(folder, "a", 450, 650) == [(450, 2), (500, 1), (550, 2), (600, 1)]
    assert set(opened_files) == {"a_400_499", "a_500_599", "a_600_699"}
    assert folder.status.files_read == 4
    opened_files.clear()
    assert len(pairs(folder, "a", 450, 650)) == 4
    assert not folder.holds("a", 3000, 4000)
    assert opened_files == []


def test_the_newest_file_is_followed_beyond_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a_0_99"
    path.write_text("10 1\n")
    folder = looked(tmp_path, spanned)
    write(path, "150 2\n", mode="a")
    assert pairs(folder, "a", 120, 200) == [(150, 2)]  # asked at once, without a look in between
    assert folder.holds("a", 120, 200)


def test_finalized_until_is_honest(tmp_path: Path) -> None:
    for name, text in {"a_0_99": "10 1\n90 1\n", "a_100_199": "110 1\n120 1\n"}.items():
        (tmp_path / name).write_text(text)
    folder = looked(tmp_path, spanned)

    def final(start: float, end: float) -> float | None:
        return folder.read("a", start, end)[0].finalized_until

    assert final(0, 100) is None
    assert final(0, 115) is None
    assert final(0, 500) == 120.0
    write(tmp_path / "a_0_99", "95 1\n", mode="a")  # one that is not the newest grows all the same
    folder.look()
    assert final(0, 500) == 95.0
    assert final(0, 50) is None
    write(tmp_path / "a_200_299", "")
    folder.look()
    assert final(150, 500) == 95.0
    assert looked(tmp_path, spanned).read("a", 150, 500)[0].finalized_until == 200.0


def test_a_spike_survives_thinning_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 5000)
    values = np.sin(np.arange(60_000) / 1000)
    values[31_337] = 99.0
    text = "".join(f"{i} {value:.4f}\n" for i, value in enumerate(values))
    (tmp_path / "a.dat").write_text(text)
    folder = looked(tmp_path)
    for limits in ({"max_points": 100}, {"min_stride": 600.0}, {"max_points": 50, "min_stride": 10.0}):
        found = pairs(folder, "a", 0, 1e9, **limits)
        assert (31_337.0, 99.0) in found
        assert len(found) <= 101
    t = np.array([t for t, _ in pairs(folder, "a", 0, 1e9, min_stride=600.0)])
    assert np.diff(t).min() >= 600.0
    monkeypatch.setattr(module, "MOST_ROWS", 20_000)
    assert len(pairs(folder, "a", 0, 1e9, max_points=100)) <= 100
    with pytest.raises(ReplyInvalid, match=r"a has more than 20000 samples.*max_points"):
        folder.read("a", 0, 1e9)


def test_files_come_go_and_change(tmp_path: Path) -> None:
    folder = looked(tmp_path)
    assert folder.fields == []
    write(tmp_path / "b.dat", "1 1\n")
    write(tmp_path / "other.txt", "1 1\n")
    folder.look()
    assert folder.fields == ["b"]
    write(tmp_path / "new", "5 5\n")
    (tmp_path / "new").replace(tmp_path / "b.dat")
    assert pairs(folder, "b", 0, 10) == [(5, 5)]
    (tmp_path / "b.dat").unlink()
    folder.look()
    assert folder.fields == []
    assert folder.status.files == 0


def test_what_cannot_be_read_is_named_and_the_rest_served(tmp_path: Path) -> None:
    (tmp_path / "a_0_99").write_text("1 1\n")
    (tmp_path / "a_100_199").mkdir()
    (tmp_path / "a_200_299").write_text("200 2\nbroken\n")
    folder = looked(tmp_path, spanned)
    samples, problems = folder.read("a", 0, 1000)
    assert samples.values.tolist() == [1, 2]
    assert len(problems) == 1
    assert "a_100_199 cannot be read: Is a directory" in problems[0]
    assert folder.status.files_unreadable == 1
    assert folder.status.rows_broken == 1
    assert any("a_200_299: 1 lines are no rows, the first is 'broken'" in problem for problem in folder.problems)
    (tmp_path / "a_100_199").rmdir()
    write(tmp_path / "a_100_199", "100 3\n")
    assert pairs(folder, "a", 0, 1000) == [(1, 1), (100, 3), (200, 2)]
    assert folder.status.files_unreadable == 0


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the folder .*nowhere does not exist   → set the option directory"):
        Folder(tmp_path / "nowhere", plain).require()
    tmp_path.joinpath("there").mkdir()
    folder = looked(tmp_path / "there")
    folder.require()
    (tmp_path / "there").rmdir()
    folder.look()
    assert "cannot be listed" in folder.problems[0]


def test_news_are_rows_that_were_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.dat", "1 1\n2 2\n")
    folder = looked(tmp_path)

    def news() -> dict[str, list[float]]:
        folder.look()
        return {field: t.tolist() for field, (t, _) in folder.news(3).items()}

    assert news() == {}
    write(tmp_path / "a.dat", "3 3\n4 4", mode="a")
    write(tmp_path / "b.dat", "7 7\n")
    assert news() == {"a": [3.0], "b": [7.0]}
    write(tmp_path / "a.dat", "5\n", mode="a")
    assert news() == {"a": [4.0]}
    write(tmp_path / "a.dat", "5 1\n6 1\n7 1\n8 1\n9 1\n", mode="a")
    assert news() == {"a": [7.0, 8.0, 9.0]}
    assert folder.status.feed_rows_skipped == 2
    assert news() == {}


def test_a_file_whose_name_grows_with_it_brings_each_row_once(tmp_path: Path) -> None:
    write(tmp_path / "a_0_10", "0 1\n10 2\n")
    folder = looked(tmp_path, spanned)
    folder.news(10)
    write(tmp_path / "a_0_10", "20 3\n", mode="a")
    (tmp_path / "a_0_10").rename(tmp_path / "a_0_20")
    folder.look()
    assert {field: t.tolist() for field, (t, _) in folder.news(10).items()} == {"a": [20.0]}
    assert pairs(folder, "a", 0, 100) == [(0, 1), (10, 2), (20, 3)]
    assert folder.status.files == 1


def test_real_files_are_read_as_plain_reading_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL.is_dir():
        pytest.skip("the example data apex-weather is not here")
    monkeypatch.setattr(file_module, "BLOCK_BYTES", 4096)
    folder = looked(REAL, cache_bytes=100_000)
    repeated = 0
    for path in sorted(REAL.glob("*.dat")):
        rows = [tuple(map(float, line.split())) for line in path.read_text().splitlines() if line[0] != "#"]
        repeated += len(rows) - len(dict(rows))
        assert pairs(folder, path.stem, 1, 2e9) == sorted(dict(rows).items())
        inside = [(t, v) for t, v in sorted(dict(rows).items()) if 1_500_000_000 <= t < 1_500_100_000]
        assert pairs(folder, path.stem, 1_500_000_000, 1_500_100_000) == inside
    assert repeated > 0
    assert folder.status.rows_repeated == repeated
    assert folder.status.rows_broken == 0
    assert folder.interval("apex_windspeed") == 60.0
