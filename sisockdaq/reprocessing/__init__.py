"""Integrate recorded acquisitions again, by the same code and with the same numbers as live.

`open_recorded` reads acquisitions of any kind, `reprocess` integrates them; `sisockdaq.integrate.saving` writes what
comes out. Needs no network.
"""

from sisockdaq.reprocessing.pipeline import Outcome, reprocess
from sisockdaq.reprocessing.recorded import Recorded, RecordedFrame, open_recorded, ranges

__all__ = ["Outcome", "Recorded", "RecordedFrame", "open_recorded", "ranges", "reprocess"]
