"""Changing what an integrator does while it runs: validated whole, built beside, taken over between two frames.

Order of a change: the new settings are checked, the new maps are computed and compiled in the calling thread while
frames go on with the old ones, then the thread of the frames takes them over and begins a new epoch. Whatever is wrong
is told before anything has changed.

While an acquisition is under way its curves stay on one axis: the new settings are given the ends of the running axes
where they name none, and a change that would alter number, names or points of the curves is refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sisockdaq.errors import AcquisitionRefused, ConfigurationError, DeadlineExceeded
from sisockdaq.integrate.settings import IntegrationSettings

if TYPE_CHECKING:
    from sisockdaq.detector.description import DetectorOptions
    from sisockdaq.integrate.epochs import Epoch
    from sisockdaq.integrate.live import LiveIntegration
    from sisockdaq.integrate.reduction import Reducer

__all__ = ["Changing", "changed_settings", "refuse_foreign_files"]

_FILES = ("geometry", "mask", "dark", "flat", "absorption", "background")
"""Settings that name a file."""

_TAKE_OVER_DEADLINE = 30.0
"""Time that the frame in hand has to be finished before new settings are taken over [s]."""

Build = Callable[[IntegrationSettings], "tuple[Reducer, DetectorOptions | None]"]
Adopt = Callable[["Reducer", IntegrationSettings, str], "Epoch"]


class Changing:
    """One integrator's changes, one at a time.

    Parameters
    ----------
    build : callable
        Makes a reducer of settings, for the detector that it returns too; blocks.
    clear : callable
        Makes room for a reducer's results, still in the calling thread; may wait.
    adopt : callable
        Takes a reducer over, in the thread of the frames; is also told the settings that were wanted and the
        acquisition that the axes were held for.
    detector : callable
        Returns the detector as it is configured now.
    """

    def __init__(
        self,
        build: Build,
        clear: Callable[[Reducer], None],
        adopt: Adopt,
        detector: Callable[[], DetectorOptions | None],
    ) -> None:
        self._build = build
        self._clear = clear
        self._adopt = adopt
        self._detector = detector
        self._alone = threading.Lock()

    def change(self, live: LiveIntegration, wanted: IntegrationSettings, present: IntegrationSettings) -> Epoch:
        """Work by other settings from the next frame on; return the epoch that this begins.

        Parameters
        ----------
        live : LiveIntegration
        wanted : IntegrationSettings
            As they were asked for.
        present : IntegrationSettings
            The same with the detector's geometry and mask named.

        Raises
        ------
        ConfigurationError, GeometryError, MaskError
            For settings that are wrong.
        AcquisitionRefused
            For a change that has to wait for the end of the acquisition, or of another change.
        """
        if not self._alone.acquire(blocking=False):
            raise AcquisitionRefused("another change is being prepared", remedy="wait for its end, and ask again")
        try:
            return self._change(live, wanted, present)
        finally:
            self._alone.release()

    def _change(self, live: LiveIntegration, wanted: IntegrationSettings, present: IntegrationSettings) -> Epoch:
        from sisockdaq.integrate.epochs import hold_axes

        held = live.state.acquisition or ""
        reducer, detector = self._build(hold_axes(present, live.reducer) if held else present)
        _refuse_other_axes(live, reducer)
        self._clear(reducer)

        def take_over() -> Epoch:
            _refuse_other_axes(live, reducer)  # an acquisition may have begun since
            if self._detector() != detector:
                raise AcquisitionRefused("the detector was configured anew meanwhile", remedy="ask again")
            return self._adopt(reducer, wanted, held)

        taking = live.between_frames(take_over)
        try:
            return taking.result(_TAKE_OVER_DEADLINE)
        except FutureTimeoutError:
            taking.cancel()
            raise DeadlineExceeded(
                f"no frame ended within {_TAKE_OVER_DEADLINE:g} s, and nothing has changed", remedy="ask again"
            ) from None
        except CancelledError:
            raise AcquisitionRefused("the integrator is being stopped") from None


def changed_settings(present: IntegrationSettings, changes: Mapping[str, Any]) -> IntegrationSettings:
    """Return settings with some of them replaced, checked as a whole.

    Raises
    ------
    ConfigurationError
        With a line a mistake in ``problems``.
    """
    try:
        return IntegrationSettings.model_validate({**present.model_dump(), **changes})
    except ValidationError as error:
        problems = [f"{_place(item['loc'])}{_reason(item)}" for item in error.errors(include_url=False)]
        raise ConfigurationError(
            "\n".join(problems), problems=problems, remedy="nothing has changed; correct all of it and ask again"
        ) from None


def _place(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""


def _reason(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return f"cannot be changed while the node runs (these can: {', '.join(IntegrationSettings.model_fields)})"
    return str(item["msg"]).removeprefix("Value error, ")


def refuse_foreign_files(changes: Mapping[str, Any], resolve: Callable[[str], Path], folders: list[Path]) -> None:
    """Refuse files outside the site's folders: who may change an integrator is not to read any file of the machine.

    Raises
    ------
    ConfigurationError
        With a line for each such file.
    """
    allowed = [os.path.realpath(folder) for folder in folders]
    problems = []
    for key, name in _files_in(changes):
        real = Path(os.path.realpath(resolve(name.partition("::")[0])))
        if not any(real.is_relative_to(folder) for folder in allowed):
            problems.append(f"{key}: {name} lies outside {' and '.join(map(str, folders))}")
    if problems:
        raise ConfigurationError("\n".join(problems), problems=problems, remedy="copy it beside the site file")


def _files_in(changes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _FILES:
        if isinstance(changes.get(key), str):
            yield key, changes[key]
    sectors = changes.get("sectors")
    for name, sector in sectors.items() if isinstance(sectors, Mapping) else ():
        for key in _FILES:
            if isinstance(sector, Mapping) and isinstance(sector.get(key), str):
                yield f"sectors.{name}.{key}", sector[key]


def _refuse_other_axes(live: LiveIntegration, reducer: Reducer) -> None:
    from sisockdaq.integrate.reduction import same_axes, same_layout

    acquisition = live.state.acquisition
    if acquisition is None or same_axes(live.reducer, reducer):
        return
    what = "the points of the curves" if same_layout(live.reducer, reducer) else "the number, names or units of results"
    raise AcquisitionRefused(
        f"the acquisition {acquisition} is under way, and this would change {what}",
        remedy="ask again when it has ended; geometry, mask and corrections can be changed now",
    )
