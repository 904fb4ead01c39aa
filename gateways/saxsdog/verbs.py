"""The verbs of ``saxsleash``: what each asks the server, and how its answer is shown."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sisockdaq.gateways.saxsdog.cli import chosen_entry, network_options
from sisockdaq.gateways.saxsdog.leash import Leash, checked, load_calibration, load_merge

from sisockdaq.errors import ConfigurationError, DeadlineExceeded
from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.wire import COMMANDS

__all__ = ["make_parser", "verb_first"]

_HELP = """\
Controls a SAXSdog server.

  saxsleash new cal.json mask.msk run1    begin: images in run1 of the server's folder are reduced from now on
  saxsleash readdir                       reduce those that are there already
  saxsleash plot -x log                   show the newest curves here, until Ctrl-C
"""

SLOW, QUICK = 100.0, 10.0
"""How long the server may take for commands that build maps or end queues, and for the others [s]."""

Arguments = argparse.Namespace

_VERBS = {**{command: command for command in COMMANDS}, "getmergestat": "mergestat"}
"""What may be typed, and what it means: the original's leash calls one of them by another name."""


def make_parser() -> argparse.ArgumentParser:
    """Return the command line of ``saxsleash``."""
    parser = argparse.ArgumentParser(description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, about: str, act: Callable[[Arguments], None], timeout: float = QUICK) -> Any:
        one = verbs.add_parser(name, help=about, description=about)
        one.add_argument("-S", "--server", metavar="URL", help="address of the server (default: the network file's)")
        one.add_argument("--compatible", action="store_true", help="for an original server: attachments unsigned")
        one.add_argument("--timeout", type=float, default=timeout, help="longest wait for an answer [s]")
        network_options(one)
        one.set_defaults(act=act)
        return one

    new = verb("new", "Load a calibration and begin a queue; ends the one that runs.", _new, SLOW)
    new.add_argument("calibration", type=Path, help="calibration file (JSON)")
    new.add_argument("rest", nargs="*", metavar="MASK… DIRECTORY", help="mask files, and the server's image folder")
    _add_plot(verb("plot", "Show the newest curves, again and again until Ctrl-C.", _plot))
    verb("plotdata", "Print the newest curves once.", _plain("plotdata"))
    verb("close", "Work off what is queued, ignore new images.", _plain("close"))
    verb("abort", "End the queue; pictures in hand are finished.", _plain("abort"), SLOW)
    verb("stat", "Say how far the queue is, and which images failed.", _stat)
    verb("readdir", "Queue all images that are in the folder.", _plain("readdir"))
    verb("get", "Print the calibration that is in use.", _get)
    listing = verb("listdir", "List a folder of the server.", _listdir)
    listing.add_argument("directory", nargs="?", default=".", help="seen from the server's folder (default: .)")
    verb("fileslist", "List the files that were written.", _fileslist)
    merge = verb("mergedata", "Join image times with log tables.", _merge, SLOW)
    merge.add_argument("configuration", type=Path, help="merge configuration (JSON)")
    merge.add_argument("--no-wait", action="store_true", help="do not wait for the end")
    verb("getmergedata", "Print what the last merge found.", _plain("getmergedata"))
    verb("mergestat", "Say what the merge has said since it was last asked.", _plain("mergestat"))
    return parser


def verb_first(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the verb before its options, in whatever order they were typed, as in the original."""
    for place, word in enumerate(arguments):
        if word in _VERBS:
            return [_VERBS[word], *arguments[:place], *arguments[place + 1 :]]
    return list(arguments)


def _add_plot(plot: Any) -> None:
    plot.add_argument("-s", "--skip", type=int, default=0, metavar="N", help="leave out the first N points")
    plot.add_argument("-k", "--clip", type=int, default=0, metavar="N", help="leave out the last N points")
    scales = {"choices": ("linear", "log"), "metavar": "TYPE"}
    plot.add_argument("-x", "--xaxsistype", default="linear", help="linear or log", **scales)
    plot.add_argument("-y", "--yaxsistype", default="log", help="linear or log (default)", **scales)
    plot.add_argument("--window", action="store_true", help="in a window")
    plot.add_argument("--save", type=Path, metavar="PNG", help="write a picture, and end")
    plot.add_argument("--once", action="store_true", help="show once, and end")
    plot.add_argument("--interval", type=float, default=2.0, help="time between two questions [s]")


def _leash(args: Arguments) -> Leash:
    entry = chosen_entry(args)
    return Leash(args.server or entry.Server, entry.Secret, strict=not args.compatible, timeout=args.timeout)


def _plain(command: str) -> Callable[[Arguments], None]:
    return lambda args: _show(args, _leash(args).do(command))


def _new(args: Arguments) -> None:
    masks, directory = _masks_and_directory(args.rest)
    calibration, attachments = load_calibration(args.calibration, masks, directory)
    reply = _leash(args).do("new", {"calibration": calibration}, attachments)
    if args.json:
        _print_json(reply)
        return
    folder = "/".join(calibration.get("Directory", [])) or "."
    for odd in _odd(calibration):
        _say(f"odd: {odd}")
    _say(f"new queue: images in {folder} are reduced from now on")
    _say("`saxsleash readdir` takes those that are there already, `saxsleash plot` shows the curves")


def _odd(calibration: dict[str, Any]) -> list[str]:
    """Return what is odd about a calibration that the server took."""
    try:
        return read_calibration(calibration).warnings()
    except ConfigurationError:  # an original server takes some that ours refuses
        return []


def _stat(args: Arguments) -> None:
    reply = _leash(args).do("stat", {} if args.compatible else {"details": True})  # the original refuses to tell them
    if not args.json and not reply["data"]["stat"]:
        _say("no queue: begin one with `saxsleash new`")
        return
    _show(args, reply)
    details = reply.get("data", {}).get("details", {})
    if args.json or not details:
        return
    for name, shown in (("rate", "images a second"), ("retries", "tries of images that were not whole"),
                        ("failed", "failed"), ("dropped", "dropped"), ("restarts", "workers that died"),
                        ("problem", "problem")):  # fmt: skip
        if value := details.get(name):
            _say(f"  {shown}: {f'{value:.1f}' if isinstance(value, float) else value}")
    for failure in details.get("failures", []):
        _say(f"    {failure['path']}: {failure['reason']}")


def _masks_and_directory(rest: list[str]) -> tuple[list[Path], str | None]:
    if not rest or (len(rest) == 1 and Path(rest[0]).is_file()):
        return [Path(one) for one in rest], None
    return [Path(one) for one in rest[:-1]], rest[-1]


def _get(args: Arguments) -> None:
    reply = _leash(args).do("get")
    if args.json or reply["result"] != "cal":
        _show(args, reply)
        return
    _say(json.dumps(reply["data"]["cal"], indent=2))


def _listdir(args: Arguments) -> None:
    reply = _leash(args).do("listdir", {"directory": args.directory.split("/")})
    if args.json:
        _print_json(reply)
        return
    for entry in reply["data"]["dircontent"]:
        _say(f"{entry['path']}{'/' if entry['isdir'] else ''}")


def _fileslist(args: Arguments) -> None:
    reply = _leash(args).do("fileslist")
    if args.json:
        _print_json(reply)
        return
    for kind, paths in reply["data"]["fileslist"].items():
        for path in paths:
            _say(f"{kind}\t{path}")


def _merge(args: Arguments) -> None:
    configuration, attachments = load_merge(args.configuration)
    server = _leash(args)
    reply = server.do("mergedata", {"mergeconf": configuration}, attachments)
    if args.no_wait:
        _show(args, reply)
        return
    while True:
        said = str(server.do("mergestat")["data"]["mergeinfo"])
        if said and not args.json:
            _say(said.strip("\n"))
        # The original says so only in `stat`, and once.
        if server.do("stat")["data"]["stat"].get("mergecount"):
            break
        time.sleep(0.5)
    result = server.ask("getmergedata")
    if args.json:
        _print_json(result)
        return
    said = str(server.do("mergestat")["data"]["mergeinfo"])
    if said:
        _say(said.strip("\n"))
    checked(result, server.url)


def _plot(args: Arguments) -> None:
    from sisockdaq.gateways.saxsdog.drawing import Look, Window, save

    look = Look(args.skip, args.clip, args.xaxsistype == "log", args.yaxsistype == "log")
    server = _leash(args)
    window = Window() if args.window else None
    wait: Callable[[float], None] = time.sleep if window is None else window.wait
    newest = _Newest(server, patient=not (args.once or args.save))
    while True:
        data = newest.ask()
        if data is not None:
            if args.save:
                save(data, look, args.save)
                _say(str(args.save))
                return
            if args.json:
                _say(json.dumps(data))
            elif window is not None:
                window.show(data, look)
            else:
                _draw(data, look)
            if args.once:
                return
        wait(args.interval if newest.found else min(args.interval, 0.5))


class _Newest:
    """The newest picture's curves, each once; while there are none, it says on stderr what is waited for.

    Parameters
    ----------
    patient : bool
        Whether to wait for a server that is away, or has no queue.
    """

    def __init__(self, server: Leash, *, patient: bool) -> None:
        self._server, self._patient = server, patient
        self._shown: tuple[Any, ...] = ()
        self._waited_for = ""
        self.found = False

    def ask(self) -> dict[str, Any] | None:
        """Return the data of a picture that was not shown; None where there is none.

        Raises
        ------
        ConfigurationError, DeadlineExceeded
        """
        try:
            data: dict[str, Any] = _with_queue(self._server.do("plot"))["data"]
        except (ConfigurationError, DeadlineExceeded) as error:
            if not self._patient:
                raise
            self._wait_for(str(error))
            return None
        if not data.get("graphs"):
            self._wait_for("no image was reduced yet: waiting for the first")
            return None
        self._waited_for, self.found = "", True
        stat = data.get("stat", {})
        # The same picture again is another one where the queue is, or where it was reduced once more.
        which = data.get("filename"), stat.get("start time"), stat.get("images processed")
        if which == self._shown:
            return None
        self._shown = which
        return data

    def _wait_for(self, what: str) -> None:
        self.found = False
        if what != self._waited_for:
            self._waited_for = what
            sys.stderr.write(f"{what}\n")


def _with_queue(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply of a server that has a queue.

    Raises
    ------
    ConfigurationError
    """
    if reply["result"] == "no queue":
        raise ConfigurationError("the server has no queue", remedy="begin one with `saxsleash new`")
    return reply


def _draw(data: dict[str, Any], look: Any) -> None:
    from sisockdaq.gateways.saxsdog.drawing import drawn

    size = shutil.get_terminal_size()
    stat = data.get("stat", {})
    foot = f"{stat.get('images processed', 0)} pictures, {stat.get('queue length', 0)} waiting"
    text = drawn(data, look, width=size.columns, height=size.lines - 2)
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")
    _say(f"{text}\n{foot}")


def _show(args: Arguments, reply: dict[str, Any]) -> None:
    """Say a reply: whole as JSON, or its result and its numbers in lines."""
    if args.json:
        _print_json(reply)
        return
    if not reply:
        _say("nothing yet")
        return
    data = reply.get("data", {})
    _say(str(reply["result"]))
    if "mergeinfo" in data:
        _say(str(data["mergeinfo"]).strip("\n") or "nothing new")
    elif "graphs" in data or "syncplot" in data or "cal" in data:
        _say(json.dumps(data))
    for name, value in (data.get("stat") or {}).items():
        _say(f"  {name}: {_clock(value) if 'time' in name else value}")


def _clock(value: Any) -> str:
    try:
        return datetime.fromtimestamp(value).isoformat(" ", "seconds")
    except (TypeError, ValueError, OverflowError, OSError):
        return str(value)


def _print_json(reply: dict[str, Any]) -> None:
    _say(json.dumps(reply, indent=4))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
