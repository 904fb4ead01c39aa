"""Files of integrated frames: NXazint1d (curves), NXazint2d (cakes) and NXcanSAS, written while they come, and read.

Needs no network and knows no integrator: arrays go in. `AzintFile` and `CansasFile` take frames one by one or in
blocks, and what was committed stays readable wherever the process dies; `EpochFiles` begins a new file when the
calibration changes; `write_cansas` writes finished curves for SasView; `read_reduced` reads all of them.
`sisockdaq.nexus.check` says what a file lacks.
"""

from sisockdaq.nexus.reduced.azint import AzintFile, EpochFiles, FrameNumber, azint_name
from sisockdaq.nexus.reduced.cansas import MOST_SEPARATE, CansasFile, cansas_name, write_cansas
from sisockdaq.nexus.reduced.content import Axis, Product, Reduction, axis_of, bin_edges, to_q
from sisockdaq.nexus.reduced.reading import DEFINITIONS, ReducedFile, ReducedProduct, read_epochs, read_reduced

__all__ = [
    "DEFINITIONS",
    "MOST_SEPARATE",
    "Axis",
    "AzintFile",
    "CansasFile",
    "EpochFiles",
    "FrameNumber",
    "Product",
    "ReducedFile",
    "ReducedProduct",
    "Reduction",
    "axis_of",
    "azint_name",
    "bin_edges",
    "cansas_name",
    "read_epochs",
    "read_reduced",
    "to_q",
    "write_cansas",
]
