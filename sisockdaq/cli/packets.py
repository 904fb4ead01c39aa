"""``sisockdaq simulate`` and ``sisockdaq replay``: packets to a site's receiver without a detector."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sisockdaq.cli._options import AsJson, Set, SiteFile
from sisockdaq.cli.up import until_signal
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.errors import ConfigurationError
from sisockdaq.notify import notify_ready
from sisockdaq.site import Site, load_site
from sisockdaq.supervisor import end_with_parent

if TYPE_CHECKING:
    from sisockdaq.detector.simulator import Simulation

__all__ = ["add_commands", "udp_receiver", "udp_targets"]

Rate = Annotated[float, typer.Option(help="Frames a second; 0 for as fast as it goes.", min=0)]
Host = Annotated[str | None, typer.Option("--to", help="Send there instead of to the receiver's own address.")]
Node = Annotated[str | None, typer.Option("--node", help="The receiver to send to. Default: the site's first.")]
Shuffle = Annotated[bool, typer.Option("--shuffle", help="Send the packets of a frame in random order.")]
Seed = Annotated[int, typer.Option(help="Of the images and of what goes wrong: same seed, same packets.")]


def add_commands(app: typer.Typer) -> None:
    """Add ``simulate`` and ``replay``."""
    app.command()(simulate)
    app.command()(replay)


def simulate(
    site: SiteFile = Path("site.yml"),
    settings: Set = None,
    frames: Annotated[int, typer.Option(help="How many frames; 0: until Ctrl-C.", min=0)] = 0,
    rate: Rate = 100.0,
    first_frame: Annotated[int, typer.Option(help="Number of the first frame.", min=0)] = 1,
    loss: Annotated[float, typer.Option(help="Share of packets that is left out.", min=0, max=1)] = 0.0,
    duplicates: Annotated[float, typer.Option(help="Share of packets that is sent twice.", min=0, max=1)] = 0.0,
    invalid: Annotated[float, typer.Option(help="Share of packets that a broken one goes with.", min=0, max=1)] = 0.0,
    shuffle: Shuffle = False,
    seed: Seed = 0,
    to: Host = None,
    node: Node = None,
    dark: Annotated[
        str | None, typer.Option(help="Send darks of a JUNGFRAU in this gain stage: G0, G1 or G2.", metavar="STAGE")
    ] = None,
    raw: Annotated[
        float | None,
        typer.Option(help="Each count a photon of this energy (keV), as a JUNGFRAU's ADCs show it.", metavar="ENERGY"),
    ] = None,
    gains: Annotated[
        Path | None, typer.Option(help="Write the gain maps of the simulated JUNGFRAU there, for the conversion.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what the site's detector would send: real packets with simulated images."""
    from sisockdaq.detector.simulator import Disturbance
    from sisockdaq.detector.simulator import simulate as send

    end_with_parent()
    where = load_site(site, overrides=settings or [])
    targets = udp_targets(where, node, to)
    detector = _detector(where)
    disturbance = Disturbance(loss=loss, duplicates=duplicates, invalid=invalid, shuffle=shuffle)
    simulation = _simulation(detector, seed, dark, raw, gains)
    with until_signal() as stop:
        notify_ready(f"{rate:g} frames/s" if rate else "as fast as it goes")
        sent = send(
            detector,
            targets,
            frames=frames or None,
            rate=rate or None,
            first_frame=first_frame,
            seed=seed,
            disturbance=disturbance,
            simulation=simulation,
            stop=stop,
        )
    _report(_summary(sent), as_json)


def replay(
    recording: Annotated[Path, typer.Argument(help="A folder of <port>.dat files, or a tar archive of one.")],
    site: SiteFile = Path("site.yml"),
    settings: Set = None,
    rate: Rate = 10.0,
    repeat: Annotated[int, typer.Option(help="How often to send it all; frame numbers go on.", min=1)] = 1,
    first_frame: Annotated[int | None, typer.Option(help="Number the frames anew from here.", min=0)] = None,
    loss: Annotated[float, typer.Option(help="Share of packets that is left out.", min=0, max=1)] = 0.0,
    shuffle: Shuffle = False,
    seed: Seed = 0,
    to: Host = None,
    node: Node = None,
    as_json: AsJson = False,
) -> None:
    """Send recorded packets again: another detector's sample, or what a receiver of ours has recorded."""
    from sisockdaq.detector.recording import Recording
    from sisockdaq.detector.replay import replay as send

    end_with_parent()
    where = load_site(site, overrides=settings or [])
    targets = udp_targets(where, node, to)
    with until_signal() as stop, Recording(recording) as recorded:
        if len(recorded.ports) != len(targets):
            raise ConfigurationError(
                f"{recording} has packets of {len(recorded.ports)} ports, the receiver listens on {len(targets)}",
                remedy="name the site of the detector that was recorded with --site",
            )
        notify_ready(f"{len(recorded.frames)} frames, {rate:g} a second")
        sent = send(
            recorded,
            targets,
            rate=rate or None,
            repeat=repeat,
            first_frame=first_frame,
            shuffle=shuffle,
            loss=loss,
            seed=seed,
            stop=stop,
        )
    _report(_summary(sent), as_json)


def udp_targets(site: Site, node: str | None = None, host: str | None = None) -> list[tuple[str, int]]:
    """Return (host, port) of each UDP port that a receiver of the site listens on.

    Raises
    ------
    ConfigurationError
        The site has no receiver of packets, or the named node is none.
    """
    return [_target(entry, host) for entry in site.entry(udp_receiver(site, node)).options["udp"]]


def udp_receiver(site: Site, node: str | None = None) -> str:
    """Return the name of the site's first receiver of packets, or the named one.

    Raises
    ------
    ConfigurationError
        The site has none, or the named node is none.
    """
    sources = site.image_sources()
    for name in [node] if node else sources:
        ports = site.entry(name).options.get("udp")
        if isinstance(ports, list) and ports:
            return name
    remedy = "give a detector_receiver its udp ports"
    if node is not None:
        reason = f"{node} has the type {site.entry(node).type}, which takes no UDP packets"
    elif sources:
        listed = ", ".join(f"{name} ({site.entry(name).type})" for name in sources)
        reason = f"its images come from {listed}; a simulated or recorded detector sends UDP packets, which none takes"
        remedy += ", or send from the source itself"
    else:
        reason = "it has no source of images: no node takes UDP packets"
    raise ConfigurationError(f"{site.file.name}: {reason}", remedy=remedy)


def _target(entry: Any, host: str | None) -> tuple[str, int]:
    address = str(entry.get("address", "127.0.0.1"))
    return host or ("127.0.0.1" if address == "0.0.0.0" else address), int(entry["port"])


def _detector(site: Site) -> DetectorOptions:
    if site.detector is None:
        raise ConfigurationError(f"{site.file.name}: detector: is missing", remedy="say what the detector is")
    return site.detector


def _simulation(
    detector: DetectorOptions, seed: int, dark: str | None, raw: float | None, gains: Path | None
) -> Simulation:
    from sisockdaq.detector.simulator import Simulation

    if dark is None and raw is None and gains is None:
        return Simulation(detector, seed=seed)
    from sisockdaq.conversion import save_gains
    from sisockdaq.conversion.simulated import dark_simulation, model_of, raw_simulation

    if gains is not None:
        save_gains(model_of(detector).gain, gains)
    if dark is not None:
        return dark_simulation(detector, dark.upper())
    return raw_simulation(detector, raw, seed) if raw is not None else Simulation(detector, seed=seed)


def _summary(sent: Any) -> dict[str, Any]:
    return {
        "frames": sent.frames,
        "packets": sent.packets,
        "packets_left_out": sum(map(len, sent.lost.values())),
        "duplicates": sent.duplicates,
        "invalid": sent.invalid,
        "seconds": sent.seconds,
    }


def _report(sent: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(sent) + "\n")
    else:
        extra = "".join(
            f", {sent[key]} {key.replace('_', ' ')}"
            for key in ("packets_left_out", "duplicates", "invalid")
            if sent[key]
        )
        sys.stdout.write(f"{sent['frames']} frames, {sent['packets']} packets{extra} in {sent['seconds']:.1f} s\n")
