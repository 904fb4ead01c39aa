"""Monitors of recorded frames: those of the field that was asked for, or a reason; never those of another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sisockdaq.cli._integration import recorded_factors
from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate.settings import IntegrationSettings

OF_INTEGRATOR, OF_OTHER, OF_RECEIVER = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, np.nan])


def recorded(field: str | None = "ioc::i0", **sources: Any) -> Any:
    columns = {"monitor": sources or {"integrator": OF_INTEGRATOR}, "sum": {"receiver": OF_RECEIVER}}
    epochs = {} if field is None else {"integrator": [{"settings": {"monitor": {"field": field}}}, {"settings": {}}]}
    return SimpleNamespace(path="run_master.h5", series=lambda name: columns.get(name, {}), epochs=epochs)


def factors(of: Any, node: str | None = None, **options: Any) -> Any:
    return recorded_factors(IntegrationSettings.model_validate(options), of, node)


def test_what_the_live_frames_were_divided_by_serves_for_its_field() -> None:
    assert factors(recorded(), monitor="ioc::i0") == {"monitor": OF_INTEGRATOR}
    assert factors(recorded(), monitor="integrator::monitor") == {"monitor": OF_INTEGRATOR}
    assert factors(recorded(), monitor="receiver::sum") == {"monitor": OF_RECEIVER}
    assert factors(recorded(), monitor=2.0) == {}
    assert factors(recorded()) == {}
    # Of several integrators the site's; a file that says nothing of its epochs is believed.
    both = recorded(None, integrator=OF_INTEGRATOR, other=OF_OTHER)
    assert factors(both, "other", monitor="ioc::i0") == {"monitor": OF_OTHER}


@pytest.mark.parametrize(
    ("of", "wanted", "reason"),
    [
        (
            recorded("receiver::sum"),
            {"monitor": "ioc::i0"},
            "has no monitor ioc::i0 of its frames; it has integrator::mon",
        ),
        (recorded(None, a=OF_OTHER, b=OF_OTHER), {"monitor": "ioc::i0"}, "it has a::monitor, b::monitor"),
        (recorded(), {"transmission": "ioc::t"}, "has no transmission ioc::t of its frames  "),
    ],
)
def test_no_other_monitor_takes_its_place(of: Any, wanted: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refusal:
        factors(of, **wanted)
    assert "as a number, as a field of the file, or none" in str(refusal.value)
