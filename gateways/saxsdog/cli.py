"""The commands ``saxsdogserver``, ``saxsfeeder``, ``saxsleash`` and ``saxsnetconf``.

They take what the original's take, as far as that is known, and ``--json``. A mistake is a line on stderr and status 1.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.saxsdog.network import (
    FEEDER_PORT,
    SERVER_PORT,
    NetworkEntry,
    choose,
    default_path,
    new_secret,
    read_network,
    write_network,
)

__all__ = ["feeder", "leash", "netconf", "server"]

_SERVER_HELP = """\
Integrates images as clients ask for it: waits for `saxsleash new`, then reduces each new image to a .chi file.

Three commands to try, each in a terminal of its own:
  saxsnetconf --new              the file by which the programs know each other
  saxsdogserver -w data          serves the folder data, and watches it
  saxsleash new cal.json mask.msk run1     images that appear in data/run1 are reduced
"""


def server(arguments: Sequence[str] | None = None) -> None:
    """``saxsdogserver [options] [FOLDER]``."""
    parser = _parser(_SERVER_HELP)
    parser.add_argument("basedir", nargs="?", type=Path, default=Path(), help="folder of this server (default: .)")
    parser.add_argument("-p", "--port", type=int, help="port for commands (default: that of the network file)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    parser.add_argument(
        "-t", "--threads", type=int, help="processes that reduce images, where the calibration names none"
    )
    parser.add_argument(
        "-f", "--feeder", metavar="URL", help="address of the feeder, or none (default: that of the network file)"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="watch the folder, besides what a feeder tells")
    parser.add_argument("-R", "--relpath", default="../work", help="folder of the curves, seen from that of the image")
    parser.add_argument("-o", "--out", type=Path, help="one folder for all curves")
    parser.add_argument(
        "--allow", type=Path, action="append", default=[], metavar="FOLDER", help="a further folder clients may name"
    )
    parser.add_argument(
        "--compatible",
        action="store_true",
        help="for clients of the original: attachments need no signature, and replays are not refused",
    )
    parser.add_argument("-d", "--daemon", action="store_true", help=argparse.SUPPRESS)
    _network_options(parser)
    _run(parser, arguments, _serve)


def feeder(arguments: Sequence[str] | None = None) -> None:
    """``saxsfeeder [options] [FOLDER …]``."""
    parser = _parser("Tells servers of each new image below some folders, once it is whole.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="what to watch (default: .)")
    parser.add_argument("-d", "--dir", dest="more", type=Path, action="append", default=[], help="a further folder")
    parser.add_argument("-p", "--port", type=int, help="port to publish at (default: that of the network file)")
    parser.add_argument("--host", default="127.0.0.1", help="address to publish at; 0.0.0.0 for other machines")
    parser.add_argument(
        "-s", "--sdir", metavar="PREFIX", help="what stands for the folder on the server's machine (default: the same)"
    )
    parser.add_argument("--polling", type=float, metavar="SECONDS", help="look every so often: for network folders")
    _network_options(parser)
    _run(parser, arguments, _feed)


def leash(arguments: Sequence[str] | None = None) -> None:
    """``saxsleash VERB …``."""
    from sisockdaq.gateways.saxsdog.verbs import make_parser, verb_first

    typed = sys.argv[1:] if arguments is None else arguments
    _run(make_parser(), verb_first(typed), lambda args: args.act(args))


def netconf(arguments: Sequence[str] | None = None) -> None:
    """``saxsnetconf [options]``."""
    parser = _parser(
        "Writes the file by which server, feeder and leash know and trust each other. Copy it to each machine."
    )
    parser.add_argument("-n", "--new", action="store_true", help="replace the file, with a new secret")
    parser.add_argument("-a", "--add", action="store_true", help="add a server to the file")
    parser.add_argument("--server", metavar="URL", help=f"(default: tcp://localhost:{SERVER_PORT})")
    parser.add_argument("--feeder", metavar="URL", help=f"(default: tcp://localhost:{FEEDER_PORT})")
    parser.add_argument("--name", help="what people call the server (default: Queue1)")
    parser.add_argument("--network", type=Path, default=default_path(), help="the file (default: ~/.saxsdognetwork)")
    parser.add_argument("--json", action="store_true", help="print the entries, without secrets, as JSON")
    _run(parser, arguments, _configure)


def chosen_entry(args: argparse.Namespace) -> NetworkEntry:
    """Return the server of the network file that the options mean."""
    return choose(read_network(args.network), args.serverno)


def network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a server of the network file is chosen, and ``--json``."""
    parser.add_argument("--network", type=Path, default=default_path(), help="network file (~/.saxsdognetwork)")
    parser.add_argument("-N", "--serverno", default="0", help="which of its servers: number or name (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


_network_options = network_options


def _serve(args: argparse.Namespace) -> None:
    from sisockdaq.gateways.saxsdog.server import Server
    from sisockdaq.gateways.saxsdog.service import Service
    from sisockdaq.gateways.saxsdog.watch import ImageWatch

    from sisockdaq.saxsdog.listing import Allowed
    from sisockdaq.saxsdog.wire import Guard

    if args.daemon:
        raise ConfigurationError("--daemon is not known here", remedy="let a site run the server, or systemd")
    if not args.basedir.is_dir():
        raise ConfigurationError(f"{args.basedir} is no folder", remedy="name the folder that has the images")
    entry = chosen_entry(args)
    port = entry.server_port if args.port is None else (args.port or "*")
    engine = Server(Allowed(args.basedir, args.allow), workers=args.threads, relative=args.relpath, output=args.out)
    heard = None if args.feeder == "none" else args.feeder or entry.Feeder
    service = Service(
        engine, Guard(entry.Secret, strict=not args.compatible), f"tcp://{args.host}:{port}", feeder=heard
    )
    watch = ImageWatch([args.basedir], lambda path: engine.new_file(str(path))) if args.watch else None
    ended = _until_signal()
    service.start()
    try:
        if watch is not None:
            watch.start()
        show = _Shown(args.json)
        while service.runs and not ended.wait(1.0):
            show({"address": service.address, **service.counters()}, service.about())
    finally:
        if watch is not None:
            watch.close()
        service.stop()


def _feed(args: argparse.Namespace) -> None:
    from sisockdaq.gateways.saxsdog.feeder import Feeder

    port = chosen_entry(args).feeder_port if args.port is None else (args.port or "*")
    folders = [*args.folders, *args.more] or [Path()]
    told: Callable[[str], None] = (
        (lambda path: _say(json.dumps({"published": path}))) if args.json else (lambda path: None)
    )
    publisher = Feeder(folders, f"tcp://{args.host}:{port}", prefix=args.sdir, polling=args.polling, told=told)
    ended = _until_signal()
    publisher.start()
    _say(
        json.dumps({"address": publisher.address})
        if args.json
        else f"{publisher.address}: watching {', '.join(map(str, folders))}"
    )
    show = _Shown(as_json=False)
    try:
        while not ended.is_set():
            if publisher.publish_waiting(0.2) and not args.json:
                dropped = f", {publisher.dropped} dropped" if publisher.dropped else ""
                show({}, f"{publisher.published} files{dropped}")
    finally:
        publisher.close()


def _configure(args: argparse.Namespace) -> None:
    path: Path = args.network
    if path.exists() and not (args.new or args.add):
        entries = read_network(path)
        if args.server or args.feeder or args.name:
            raise ConfigurationError(f"{path} exists", remedy="replace it with --new, or add a server with --add")
    else:
        entries = read_network(path) if args.add and path.exists() else []
        entries.append(_asked_entry(args, len(entries) + 1))
        write_network(path, entries)
    shown = [entry.model_dump(exclude={"Secret"}) for entry in entries]
    if args.json:
        _say(json.dumps(shown))
        return
    for number, entry in enumerate(shown):
        _say(f"{number}  {entry['Name']}: server {entry['Server']}, feeder {entry['Feeder']}")
    _say(f"{path}: copy it to the other machines of the network (it holds a secret: mode 600)")


def _asked_entry(args: argparse.Namespace, number: int) -> NetworkEntry:
    """Return an entry of what the options say, and of what a person says to the rest."""
    asks = sys.stdin.isatty() and not (args.server or args.feeder or args.name)

    def ask(what: str, given: str | None, default: str) -> str:
        if given is not None or not asks:
            return given or default
        return input(f"{what} [{default}]: ").strip() or default

    shift = number - 1
    said = {
        "Server": ask("address of the server", args.server, f"tcp://localhost:{SERVER_PORT + shift}"),
        "Feeder": ask("address of the feeder", args.feeder, f"tcp://localhost:{FEEDER_PORT + shift}"),
        "Name": ask("name", args.name, f"Queue{number}"),
    }
    try:
        return NetworkEntry(Secret=new_secret(), **said)
    except ValueError as error:
        raise ConfigurationError(str(error).splitlines()[2].strip()) from None


class _Shown:
    """What a running command shows: a line that changes in a terminal, else a line now and then; or JSON."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._last = ""
        self._when = 0.0

    def __call__(self, numbers: dict[str, Any], text: str) -> None:
        line = json.dumps(numbers) if self._json else text
        if line == self._last:
            return
        if not self._json and sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[K{line}")
            sys.stdout.flush()
        elif self._json or time.monotonic() > self._when:
            _say(line)
            self._when = time.monotonic() + 10
        else:
            return
        self._last = line


def _until_signal() -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


def _parser(about: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)


def _run(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, act: Callable[[argparse.Namespace], None]
) -> None:
    args = parser.parse_args(arguments)
    try:
        act(args)
    except SisockdaqError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    except (KeyboardInterrupt, EOFError):
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
