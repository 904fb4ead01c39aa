"""From a frame's last packet to its event at a client, through receiver and router, at 100 frames a second.

The whole demo site runs: the integrator and the writer work on the same frames. Both clocks are this machine's. The
bars are 10 ms for half of the frames and 50 ms for 99 of 100.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._site import demo_site
from sisockdaq.cli.acceptance import Arrivals, start_when_attached
from sisockdaq.client import Client

RATE = 100
BARS = {50: 10.0, 99: 50.0}
"""Percentile → milliseconds."""


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return one row a percentile."""
    frames = 300 if quick else 2000
    with demo_site() as site, Client(site.site.site, control=True) as client:
        acquisition = start_when_attached(client, site, "latency", frames)
        with Arrivals(client, site.site.image_sources()[0]) as arrivals:
            site.send("simulate", "--frames", str(frames), "--rate", str(RATE), timeout=60 + 2 * frames / RATE)
            acquisition.wait(30, progress=False)
        milliseconds = arrivals.milliseconds()
    if len(milliseconds) < 0.9 * frames:
        raise RuntimeError(f"only {len(milliseconds)} of {frames} frames were heard of live")
    rows = []
    for percent, bar in BARS.items():
        value = float(np.percentile(milliseconds, percent))
        rows.append(
            {
                "benchmark": "latency",
                "case": f"p{percent} at {RATE} frames/s",
                "value": round(value, 2),
                "unit": "ms",
                "against": f"a bar of {bar:g} ms",
                "ratio": round(bar / value, 2),
                "floor_share": None,
            }
        )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
