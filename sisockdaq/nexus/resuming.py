"""How a writer finds its way back into an acquisition that it had begun before it died.

While the source goes on with it, what the writer needs to know travels with the acquisition itself: the source keeps
the request's ``meta`` and shows it to whoever attaches. When the source has ended it meanwhile, the writer's journal
says what was under way, and its files are all that is left to count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sisockdaq.acquisition import Request
from sisockdaq.frames.ledger import ConsumerPart, Ledger
from sisockdaq.frames.messages import Arm, Start
from sisockdaq.frames.raw import RAW_KEY, RawWish
from sisockdaq.nexus.reader import DataFileReader

__all__ = ["LEFT_REASON", "WRITER_KEY", "arm", "ledger_of_files", "left_behind"]

LEFT_REASON = "the writer died, and the frame source had ended the acquisition before it was back"

WRITER_KEY = "file_writer"
"""Key of ``Start.meta`` that says who writes the acquisition, and where to."""


def arm(request: Request, writer: str, raw: RawWish | None = None) -> Arm:
    """Return the request to the source, with the writer's note to itself, and where raw packets are to go."""
    note = {
        "name": writer,
        "directory": request.directory,
        "run_id": request.run_id,
        "output_file": request.output_file,
        "user_id": request.user_id,
        "raw": request.raw,
    }
    wish = {RAW_KEY: raw.to_meta()} if raw is not None else {}
    return Arm(request.acquisition, request.frames, {**request.meta, WRITER_KEY: note, **wish})


def left_behind(under_way: Start | None, writer: str) -> Request | None:
    """Return the acquisition under way as it was asked for, when it is this writer's; else None."""
    note = under_way.meta.get(WRITER_KEY) if under_way is not None else None
    if under_way is None or not isinstance(note, dict) or note.get("name") != writer:
        return None
    meta = {key: value for key, value in under_way.meta.items() if key not in (WRITER_KEY, RAW_KEY)}
    return Request(
        under_way.acquisition,
        under_way.frames,
        note.get("directory"),
        meta,
        run_id=note.get("run_id"),
        output_file=note.get("output_file"),
        user_id=note.get("user_id"),
        raw=note.get("raw"),
    )


def ledger_of_files(acquisition: str, writer: str, files: Sequence[Path], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return what the files of an acquisition tell, when nobody else is left to ask.

    Frames that are not in them are ``unknown``: dropped or never taken, nobody can tell any more.

    Raises
    ------
    FileUnreadable
    """
    ledger, published = Ledger(acquisition, "failed"), 0
    for path in files:
        with DataFileReader(path) as reader:
            source = reader.summary().image_source
            there = ~np.isnan(reader.times(source))
            expected = reader.series(source, "packets_expected")[there].astype(np.int64)
            received = reader.series(source, "packets_received")[there].astype(np.int64)
        complete = int(np.count_nonzero(expected == received))
        ledger.packets_expected += int(expected.sum())
        ledger.packets_received += int(received.sum())
        ledger.frames_expected += len(there)
        ledger.frames_complete += complete
        ledger.frames_partial += len(expected) - complete
        published += len(expected)
    ledger.packets_lost = ledger.packets_expected - ledger.packets_received
    ledger.frames_published, ledger.frames_dropped = published, {"unknown": ledger.frames_expected - published}
    ledger.consumers[writer] = ConsumerPart("lossless", taken=published, counts=dict(counts))
    return ledger.to_dict()
