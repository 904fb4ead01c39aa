"""One call that answers with the messages of `sisockdaq.wire`, from any session."""

from __future__ import annotations

from typing import Any

from autobahn.wamp.types import CallOptions
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred

from sisockdaq._wamp.link import error_of, the_reactor
from sisockdaq.errors import ConnectionFailed, DeadlineExceeded, ReplyInvalid
from sisockdaq.wire import Assembler

__all__ = ["call_arrays"]


@inlineCallbacks
def call_arrays(session: Any, silence: float, procedure: str, *args: Any, **kwargs: Any) -> Any:
    """Call a procedure such as ``get_arrays``; the Deferred gets its `Reply`.

    The deadline is on silence: a large reply may take long, but something must come every `silence` seconds.

    Raises
    ------
    SisockdaqError
        Why there is no reply; the first reason that is known here goes before what ended the call.
    """
    if not session.is_attached():
        raise ConnectionFailed(f"not connected to the router, so {procedure} cannot be called")
    assembler = Assembler()
    refused: list[Exception] = []

    def progress(message: Any) -> None:
        timer.reset(silence)
        try:
            assembler.add(message)
        except (ReplyInvalid, MemoryError) as error:
            refused.append(error)
            result.cancel()

    def expire() -> None:
        came = f"after {assembler.received} of {assembler.expected} bytes" if assembler.expected else ""
        refused.append(DeadlineExceeded(f"{procedure} said nothing for {silence:g} s {came}".rstrip()))
        result.cancel()

    options = CallOptions(on_progress=progress)
    result: Deferred[Any] = maybeDeferred(session.call, procedure, *args, options=options, **kwargs)
    timer = the_reactor().callLater(silence, expire)
    try:
        message = yield result
        return assembler.finish(message)
    except MemoryError:
        raise ReplyInvalid("the reply does not fit in memory", remedy="give max_points, or ask less") from None
    except Exception as error:
        if refused:
            raise refused[0] from None
        raise error_of(error, procedure) from None
    finally:
        if timer.active():
            timer.cancel()
