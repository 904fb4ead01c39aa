"""NXmx files, written and read. Needs no network.

Reading needs only this module: `read_master` says what an acquisition was, `DataFileReader` reads its images, numbers
and curves, also while the files grow. The writer is in `engine` (with rings) and `fileset` (plain arrays), what is in a
folder of files in `archive`.
"""

from sisockdaq.nexus.reader import (
    AxisValues,
    DataFileReader,
    DataFileSummary,
    FieldSummary,
    MasterSummary,
    SourceSummary,
    file_state,
    read_master,
)

__all__ = [
    "AxisValues",
    "DataFileReader",
    "DataFileSummary",
    "FieldSummary",
    "MasterSummary",
    "SourceSummary",
    "file_state",
    "read_master",
]
