"""The commands ``std_cli_*``: what std-daq-client's commands do, for any std-daq, with clear errors.

They take what those take, ``-b`` and ``STD_DAQ_API_URL``, and ``--url_base`` as its documentation promises; so it does
not matter whose are installed last. Nothing but the standard library is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

__all__ = [
    "get_config",
    "get_deploy_status",
    "get_logs",
    "get_stats",
    "get_status",
    "set_config",
    "write_async",
    "write_stop",
    "write_sync",
]

DEFAULT_URL = "http://127.0.0.1:5000"


def get_status() -> None:
    """``std_cli_get_status``."""
    _command("Show how far the writer is.", lambda args: _call(args, "GET", "/writer/status", "writer"))


def get_config() -> None:
    """``std_cli_get_config``."""
    _command("Show the configuration.", lambda args: _call(args, "GET", "/daq/config", "config"))


def set_config() -> None:
    """``std_cli_set_config FILE``."""

    def act(args: argparse.Namespace) -> Any:
        try:
            changes = json.loads(Path(args.config_file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            _fail(f"{args.config_file}: {getattr(error, 'strerror', None) or error}")
        return _call(args, "POST", "/daq/config", "config", changes)

    _command("Change the configuration; keys left out keep their values.", act, ("config_file", str, "JSON file."))


def get_logs() -> None:
    """``std_cli_get_logs [-n N]``."""

    def count(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-n", type=int, default=1, help="How many (default: 1).")

    _command(
        "Show the last acquisitions, newest first.",
        lambda args: _call(args, "GET", f"/daq/logs/{args.n}", "logs"),
        more=count,
    )


def get_stats() -> None:
    """``std_cli_get_stats``."""
    _command("Show the throughput of the last second.", lambda args: _call(args, "GET", "/daq/stats", "stats"))


def get_deploy_status() -> None:
    """``std_cli_get_deploy_status``."""
    _command(
        "Show how far the newest configuration has come.",
        lambda args: _call(args, "GET", "/daq/deployment", "deployment"),
    )


def write_sync() -> None:
    """``std_cli_write_sync FILE N``."""
    _write("Take images, and wait until all are in the file.", "/writer/write_sync")


def write_async() -> None:
    """``std_cli_write_async FILE N``."""
    _write("Begin to take images.", "/writer/write_async")


def write_stop() -> None:
    """``std_cli_write_stop``."""
    _command("End the acquisition, if there is one.", lambda args: _call(args, "POST", "/writer/stop", "writer", {}))


def _write(about: str, path: str) -> None:
    _command(
        about,
        lambda args: _call(args, "POST", path, "writer", {"output_file": args.output_file, "n_images": args.n_images}),
        ("output_file", str, "Absolute path of the file."),
        ("n_images", int, "Number of images."),
    )


def _command(
    about: str,
    act: Callable[[argparse.Namespace], Any],
    *positional: tuple[str, Callable[[str], Any], str],
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Read the command line, act, and print the answer as JSON."""
    parser = argparse.ArgumentParser(description=about)
    for name, kind, text in positional:
        parser.add_argument(name, type=kind, help=text)
    more(parser)
    parser.add_argument(
        "-b",
        "--url_base",
        "--url-base",
        default=os.environ.get("STD_DAQ_API_URL", DEFAULT_URL),
        help=f"Address of the std-daq interface. Default: $STD_DAQ_API_URL, else {DEFAULT_URL}.",
    )
    answer = act(parser.parse_args())
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


def _call(args: argparse.Namespace, method: str, path: str, key: str, body: Any = None) -> Any:
    """Call the interface; an acquisition may take any time, so that there is no limit to the wait."""
    base = args.url_base.rstrip("/")
    if urlsplit(base).scheme not in ("http", "https"):
        _fail(f"{base} is not an address of the form http://host:port")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=None) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        _fail(f"{base}{path} answers {error.code} {error.reason}: is this a std-daq interface?")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        _fail(f"{base} cannot be asked: {reason}\n   → name another address with --url_base or STD_DAQ_API_URL")
    if not isinstance(answer, dict) or answer.get("status") != "ok":
        _fail(str(answer.get("message") if isinstance(answer, dict) else answer))
    return answer.get(key)


def _fail(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    raise SystemExit(1)
