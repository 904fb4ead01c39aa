"""The ``sisockdaq`` command: one module a group of commands, each with ``add_commands(app)``.

An error that a person can mend is one or two lines on stderr and a non-zero exit status, never a traceback; what a
script reads goes to stdout (``--json`` on every command that has an answer).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from typing import NoReturn

import typer

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.notify import notify_status
from sisockdaq.supervisor import CONFIGURATION_ERROR

__all__ = ["app", "main"]

HELP = """Data acquisition for beamlines and observatories.

Begin with `sisockdaq init my-site`, then `sisockdaq up my-site`; look around with `nodes`, `fields`, `get`,
`watch` and `plot`, take data with `acquire`, and see where every packet went with `ledger`.
"""


def app() -> typer.Typer:
    """Return the command with all its sub-commands."""
    from sisockdaq.cli import (
        calibration,
        check,
        configure,
        demo,
        doctor,
        init,
        integrate,
        join,
        packets,
        pedestal,
        query,
        run,
        up,
    )

    command = typer.Typer(
        name="sisockdaq",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    taking = (init, up, run, join, query, packets, pedestal, configure)
    for module in (*taking, calibration, integrate, check, doctor, demo):
        module.add_commands(command)
    return command


def main() -> NoReturn:
    """Run the command line; errors of a person's making end with their message and status 1 or 78."""
    try:
        app()()
    except SystemExit as end:  # how click ends
        _leave(end.code)
    except ConfigurationError as error:
        _tell(error)
        _leave(CONFIGURATION_ERROR)
    except SisockdaqError as error:
        _tell(error)
        _leave(1)
    except KeyboardInterrupt:
        _leave(130)
    _leave(0)


def _leave(status: str | int | None) -> NoReturn:
    """End the process, whatever its daemon threads do.

    Python stops them where they are and then takes everything apart; one that holds a library's lock at that moment
    (h5py has one for all of HDF5) would keep the process from ever ending.
    """
    if isinstance(status, str) or not any(thread.daemon for thread in threading.enumerate()):
        sys.exit(status)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status or 0)


def _tell(error: SisockdaqError) -> None:
    notify_status(str(error))
    lines = [error.message, *getattr(error, "reasons", [])]
    if len(lines) > 1 and lines[1] == lines[0]:
        lines.pop()
    # The real one: a node's log has taken the place of sys.stderr.
    (sys.__stderr__ or sys.stderr).write(
        "\n  - ".join(lines) + (f"\n   → {error.remedy}" if error.remedy else "") + "\n"
    )
