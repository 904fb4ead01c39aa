"""Parts of a frame done by several threads: every part once, in order, whoever else uses the threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate.threads import run_parts


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("parts", [0, 1, 2, 17])
def test_every_part_is_done_once_and_in_its_place(parts: int, threads: int) -> None:
    done: list[int] = []

    def work(part: int) -> int:
        done.append(part)
        return part * part

    assert run_parts(work, parts, threads) == [part * part for part in range(parts)]
    assert sorted(done) == list(range(parts))


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=20)
    assert run_parts(lambda part: together.wait() >= 0, 2, 2) == [True, True]


def test_many_callers_share_the_threads() -> None:
    def caller(number: int) -> list[int]:
        return run_parts(lambda part: number + part, 9, 3)

    with ThreadPoolExecutor(6) as pool:
        for number, result in enumerate(pool.map(caller, range(200))):
            assert result == [number + part for part in range(9)]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_any_part_is_raised(threads: int) -> None:
    def work(part: int) -> int:
        if part == 5:
            raise ValueError("part 5")
        return part

    with pytest.raises(ValueError, match="part 5"):
        run_parts(work, 9, threads)
    assert run_parts(lambda part: part, 3, threads) == [0, 1, 2]


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_numbers_of_threads_that_cannot_be_are_refused(threads: int) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 64"):
        run_parts(lambda part: part, 2, threads)
