"""The command ``jfjoch_writer``: the options of the Jungfraujoch writer, and a few more.

SIGTERM and SIGINT close the files in order. A mistake is a line on stderr and status 78 (options) or 1.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from typer import Argument, Option

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.jungfraujoch.memory import keep_freed_memory
from sisockdaq.jungfraujoch.options import WriterOptions
from sisockdaq.jungfraujoch.service import StreamWriter
from sisockdaq.nexus.layout import MasterLayout

__all__ = ["main"]

_CONFIGURATION_ERROR = 78
"""Exit status for an option that is wrong (EX_CONFIG)."""


def write(
    connect: Annotated[list[str], Argument(metavar="ADDRESS…", help="ZeroMQ addresses of the sender: tcp://host:5400")],
    root_dir: Annotated[Path, Option("-R", "--root_dir", help="Folder that file prefixes are relative to.")] = Path(),
    http_port: Annotated[
        int | None, Option("-H", "--http_port", min=0, max=65535, help="HTTP port for status and cancel.")
    ] = None,
    zmq_repub_port: Annotated[
        int | None,
        Option(
            "-r",
            "--zmq_repub_port",
            min=0,
            max=65535,
            help="ZeroMQ port of a PUSH socket that republishes all messages.",
        ),
    ] = None,
    zmq_file_port: Annotated[
        int | None,
        Option(
            "-f", "--zmq_file_port", min=0, max=65535, help="ZeroMQ port of a PUB socket that tells of finalised files."
        ),
    ] = None,
    rcv_watermark: Annotated[int, Option("-w", "--rcv_watermark", min=1, help="Messages that wait to be read.")] = 100,
    repub_watermark: Annotated[
        int, Option("-W", "--repub_watermark", min=1, help="Messages that wait to be republished.")
    ] = 1000,
    host: Annotated[str, Option("--host", help="Address of these ports; 0.0.0.0 for every network.")] = "127.0.0.1",
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace existing files. Default: refuse the series.")
    ] = False,
    images_per_file: Annotated[
        int, Option("--images_per_file", min=1, help="Images in a data file where the sender does not say.")
    ] = 1000,
    file_prefix: Annotated[
        str | None,
        Option("--file_prefix", help="Where the sender gives none; {series_id}, {series_unique_id} are filled in."),
    ] = None,
    compression: Annotated[str, Option("--compression", help="Of images that come without: bslz4 or none.")] = "bslz4",
    master: Annotated[
        str, Option("--master", help="Layout: legacy (links to data files), vds (one virtual dataset) or integrated.")
    ] = "legacy",
    threads: Annotated[int, Option("--threads", min=1, max=64, help="Threads that compress.")] = 2,
    flush_interval: Annotated[
        float, Option("--flush_interval", min=0.01, max=60, help="Seconds between flushes: what a kill may cost.")
    ] = 1.0,
    end_timeout: Annotated[
        float, Option("--end_timeout", min=0.1, help="Seconds to wait for an end message that is due.")
    ] = 10.0,
    verbose: Annotated[bool, Option("-v", "--verbose", help="Say more in the log (stderr).")] = False,
) -> None:
    """Write what a Stream V2 or Jungfraujoch sender sends to NXmx files."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    if compression not in ("bslz4", "none"):
        raise ConfigurationError(f"compression “{compression}” is not known", remedy="bslz4 or none")
    if master not in get_args(MasterLayout):
        raise ConfigurationError(f"master layout “{master}” is not known", remedy="legacy, vds or integrated")
    if not root_dir.is_dir():
        raise ConfigurationError(f"{root_dir} is no folder", remedy="make it, or choose another with -R")
    options = WriterOptions(
        root=root_dir,
        connect=connect,
        republish=_address(host, zmq_repub_port),
        notices=_address(host, zmq_file_port),
        receive_watermark=rcv_watermark,
        republish_watermark=repub_watermark,
        images_per_file=images_per_file,
        file_prefix=file_prefix,
        overwrite=overwrite,
        compression=compression,
        master=cast("MasterLayout", master),
        threads=threads,
        flush_interval=flush_interval,
        end_timeout=end_timeout,
    )
    _serve(options, host, http_port)


def _address(host: str, port: int | None) -> str | None:
    """Return a ZeroMQ address; port 0 takes any free one."""
    return None if port is None else f"tcp://{host}:{port or '*'}"


def _serve(options: WriterOptions, host: str, http_port: int | None) -> None:
    """Run until a signal comes."""
    from twisted.internet import reactor as installed

    from sisockdaq.jungfraujoch.http import listen

    reactor: Any = installed
    log = logging.getLogger("jfjoch_writer")
    keep_freed_memory()
    writer = StreamWriter(options)
    try:
        if http_port is not None:
            port = listen(reactor, writer, host, http_port)
            log.info("status on http://%s:%d/status", host, port.getHost().port)
    except SisockdaqError:
        writer.close()
        raise
    for what, address in (("republished on", writer.republish_address), ("files told on", writer.notices_address)):
        if address is not None:
            log.info("%s %s", what, address)
    writer.start()
    log.info("waiting for %s", ", ".join(options.connect))
    reactor.addSystemEventTrigger("during", "shutdown", writer.close)
    reactor.run()


def main() -> None:
    """Run the command line; errors of a person's making end with their message and status 1 or 78."""
    try:
        typer.run(write)
    except SisockdaqError as error:
        print(f"jfjoch_writer: {error}", file=sys.stderr)
        sys.exit(_CONFIGURATION_ERROR if isinstance(error, ConfigurationError) else 1)


if __name__ == "__main__":
    main()
