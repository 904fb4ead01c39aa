"""Frames from image files as they appear in a folder: cameras that write TIFF, CBF or EDF.

The files are read by `sisockdaq.sources.files`, which says how they are ordered and what is passed over.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sisockdaq.sources.events import Feed
from sisockdaq.sources.files import FileFeed, FileRules
from sisockdaq.sources.node import SourceNode
from sisockdaq.sources.pump import PumpSettings

__all__ = ["FileWatcher"]

_RULES = FileRules()


class FileWatcher(SourceNode):
    """Frames from image files as they appear in a folder."""

    class Options(SourceNode.Options):
        """The folder, and how long is waited for files."""

        directory: Path = Field(description="Folder to watch; relative to the data root.")
        patterns: list[str] = Field(
            list(_RULES.patterns), min_length=1, description="Names of the files, as shell patterns."
        )
        recursive: bool = Field(_RULES.recursive, description="Look into the folders within, too.")
        existing: bool = Field(_RULES.existing, description="Take the files that are there at the start, too.")
        order_wait: float = Field(
            _RULES.order_wait,
            ge=0,
            le=600,
            description="How long a file waits for those with lower numbers before it goes first [s].",
        )
        patience: float = Field(
            _RULES.patience,
            gt=0,
            le=3600,
            description="How long a file that does not change and cannot be read is tried again [s].",
        )
        scan_interval: float = Field(
            _RULES.scan_interval,
            ge=0.1,
            le=3600,
            description="Time between two listings of the folder, for files that were not announced [s].",
        )

    def make_feed(self) -> Feed:
        """Return the folder's feed."""
        options = self.options
        root = self.site.resolve_output(options.directory) if self.site is not None else options.directory.absolute()
        rules = FileRules(
            tuple(options.patterns),
            order_wait=options.order_wait,
            patience=options.patience,
            scan_interval=options.scan_interval,
            recursive=options.recursive,
            existing=options.existing,
        )
        return FileFeed(root, rules)

    def pump_settings(self) -> PumpSettings:
        """Files come in the order of their numbers."""
        return self.known()
