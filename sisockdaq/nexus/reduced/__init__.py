"""Files of integrated frames: NXazint1d (curves), NXazint2d (cakes), NXcanSAS and text, written and read.

Needs no network and knows no integrator: arrays go in. `AzintFile` and `CansasFile` take frames one by one or in
blocks, and what was committed stays readable wherever the process dies; `EpochFiles` begins a new file when the
calibration changes. `read_reduced` reads all of them; `export_cansas` and `export_text` give curves to SasView, ATSAS
and others. `sisockdaq.nexus.check` says what a file lacks.
"""

from sisockdaq.nexus.reduced.azint import AzintFile, EpochFiles, FrameNumber, azint_name
from sisockdaq.nexus.reduced.cansas import MOST_SEPARATE, CansasFile, cansas_name, write_cansas
from sisockdaq.nexus.reduced.content import Axis, Product, Reduction, axis_of, bin_edges, to_q
from sisockdaq.nexus.reduced.export import export_cansas, export_text, reduction_of
from sisockdaq.nexus.reduced.reading import DEFINITIONS, ReducedFile, ReducedProduct, read_epochs, read_reduced
from sisockdaq.nexus.reduced.text import CurveNames, TextCurve, read_curve, write_curve

__all__ = [
    "DEFINITIONS",
    "MOST_SEPARATE",
    "Axis",
    "AzintFile",
    "CansasFile",
    "CurveNames",
    "EpochFiles",
    "FrameNumber",
    "Product",
    "ReducedFile",
    "ReducedProduct",
    "Reduction",
    "TextCurve",
    "axis_of",
    "azint_name",
    "bin_edges",
    "cansas_name",
    "export_cansas",
    "export_text",
    "read_curve",
    "read_epochs",
    "read_reduced",
    "reduction_of",
    "to_q",
    "write_cansas",
    "write_curve",
]
