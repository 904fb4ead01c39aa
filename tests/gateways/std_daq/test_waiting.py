"""A synchronous write of the real client that takes longer than the minute after which others give up."""

from __future__ import annotations

import time

import pytest

from sisockdaq.testing import wait_until
from tests.gateways.std_daq.conftest import LongWrite

LIMIT = 60.0
"""Where proxies and servers, and the existing std-daq, end a request that is not answered [s]."""


@pytest.mark.timeout(180)
def test_a_synchronous_write_takes_longer_than_a_minute(long_write: LongWrite) -> None:
    past = long_write.began + LIMIT + 1
    wait_until(lambda: long_write.answer.done() or time.monotonic() > past, LIMIT + 10, "more than a minute")
    assert not long_write.answer.done()
    long_write.rig.writer.write(3)
    long_write.rig.writer.end()
    ended = long_write.answer.result(10)
    assert (ended["acquisition"]["message"], ended["acquisition"]["stats"]["n_write_completed"]) == ("Completed.", 3)
    stats = ended["acquisition"]["stats"]
    assert stats["stop_time"] - stats["start_time"] > LIMIT
