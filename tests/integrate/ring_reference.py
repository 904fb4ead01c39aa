"""pyFAI's answers about whole rings, and what it rejects."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyFAI.ext.splitBBoxCSR  # noqa: F401  (loads the OpenMP library that is looked for below)
from hypothesis import assume

from sisockdaq.errors import MaskError
from sisockdaq.integrate import Integrator
from sisockdaq.integrate.kernels import prepare
from sisockdaq.integrate.rings import Rings
from tests.integrate.geometries import Case


def make_rings(case: Case, split: Any, **options: Any) -> Rings:
    """Make the rings of a case; geometries that leave no pixel are not looked at."""
    try:
        integrator = Integrator(case.parameters, split=split, **case.options())
    except MaskError:
        assume(False)
    return Rings.of(integrator.bin_map, **options)


def frame_of(image: npt.NDArray[Any], dummy: float | None = None) -> Any:
    return prepare(image, dummy)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let pyFAI go through the rings in their order: what one rejects of a split pixel the next ones do not see."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    library = ctypes.CDLL(next(line.split()[-1] for line in maps if "libgomp" in line))
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


def ask(case: Case, what: str, image: npt.NDArray[Any], split: str, **more: Any) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Call pyFAI's ``sigma_clip`` or ``medfilt1d_ng``; return the result and the pixels that it rejected."""
    pyfai = case.pyfai()
    with one_thread():
        result = getattr(pyfai, what)(
            image,
            case.bins,
            unit=case.unit,
            method=(split, "csr", "cython"),
            mask=case.mask(),
            polarization_factor=case.polarization,
            correctSolidAngle=case.solid_angle,
            **more,
        )
    engine = next(engine.engine for method, engine in pyfai.engines.items() if method.algo_lower == "csr")
    return result, np.isnan(np.asarray(engine.preprocessed)[:, 3]).reshape(case.shape)
