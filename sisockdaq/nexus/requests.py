"""What callers say to the writer, checked before anything else looks at it: every mistake at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sisockdaq.acquisition import Request
from sisockdaq.errors import AcquisitionRefused, ConfigurationError
from sisockdaq.frames.raw import RAW_MODES
from sisockdaq.nexus.identity import user_obstacle
from sisockdaq.nexus.placing import name_of

__all__ = ["checked_request", "checked_user"]

_LONGEST_RUN_ID = 200


def checked_request(
    acquisition: Any,
    frames: Any,
    directory: Any,
    meta: Any,
    run_id: Any,
    output_file: Any,
    user_id: Any,
    raw: Any = None,
) -> Request:
    """Return the request if every argument is of its kind; they come over the network, and may be anything.

    Raises
    ------
    AcquisitionRefused
        With every mistake; whether the acquisition is possible is not looked at here.
    """
    reasons = []
    if acquisition is None and output_file is None:
        reasons.append("neither a name nor an output_file is given   → name the acquisition")
    for name, value in (("acquisition", acquisition), ("directory", directory), ("output_file", output_file)):
        if value is not None and not isinstance(value, str):
            reasons.append(f"{name} is {value!r}   → it must be text")
    for name, number in (("frames", frames), ("user_id", user_id)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            reasons.append(f"{name} is {number!r}   → it must be a whole number")
    if run_id is not None and (isinstance(run_id, bool) or not isinstance(run_id, int | str)):
        reasons.append(f"run_id is {run_id!r}   → it must be a whole number or text")
    elif isinstance(run_id, str) and len(run_id) > _LONGEST_RUN_ID:
        reasons.append(f"run_id has {len(run_id)} letters   → {_LONGEST_RUN_ID} at most")
    if meta is not None and not isinstance(meta, Mapping):
        reasons.append(f"meta is {meta!r}   → it must be names with values")
    if raw is not None and raw not in RAW_MODES:
        reasons.append(f"raw is {raw!r}   → one of {', '.join(RAW_MODES)}, or nothing")
    if reasons:
        raise AcquisitionRefused(f"cannot start {acquisition or output_file or 'an acquisition'}", reasons=reasons)
    return Request(
        acquisition if acquisition is not None else name_of(str(output_file)),
        frames,
        directory,
        dict(meta or {}),
        run_id=run_id,
        output_file=output_file,
        user_id=user_id,
        raw=raw,
    )


def checked_user(changes: Mapping[str, Any], present: int | None) -> int | None:
    """Return the user id that a change of the writer's configuration asks for, else the present one.

    Raises
    ------
    ConfigurationError
        With every reason.
    """
    problems = [f"{key} is not a setting of the writer (writer_user_id is)" for key in changes if key != _USER]
    user: Any = changes.get(_USER, present)
    if user is not None and (isinstance(user, bool) or not isinstance(user, int)):
        problems.append(f"{_USER} is {user!r}   → a whole number, or null for the writer's own user")
    elif (obstacle := user_obstacle(user)) is not None:
        problems.append(f"{_USER}: {obstacle}")
    if problems:
        raise ConfigurationError("; ".join(problems), problems=problems)
    return None if user is None else int(user)


_USER = "writer_user_id"
