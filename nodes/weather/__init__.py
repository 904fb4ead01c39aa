"""Weather from text files that say themselves what they are: a sample of our own, or any folder of such files.

Each file ``<field>.dat`` is one field. Lines that begin with ``#`` are comments; the first is the field's description,
the second the name of its timeline, the third its units. Then come rows ``unix_time value``.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from pydantic import Field as Option

from sisockdaq.schema import Field
from sisockdaq.textfiles import Form, Named, TextFilesNode

__all__ = ["Weather"]

_SUFFIX = ".dat"


class Weather(TextFilesNode):
    """Archived weather; without a directory a synthetic fortnight of July 2017."""

    class Options(TextFilesNode.Options):
        """Which files."""

        directory: Path | None = Option(  # type: ignore[assignment]
            None,
            description="Folder of the files, relative to the site file; the package's own sample when left out.",
        )

    def place(self) -> Path:
        """Return the folder of the files, or of the sample."""
        if self.options.directory is None:
            return Path(str(resources.files(__name__) / "sample"))
        return super().place()

    def named(self, name: str) -> Named | None:
        """Every visible ``.dat`` file is a field."""
        stem = name.removesuffix(_SUFFIX)
        return Named(stem, Form()) if stem and stem != name and not stem.startswith(".") else None

    def describe(self, field: str) -> tuple[Field, float | None]:
        """Return what the comments of the file say."""
        description, timeline, units = [*self.folder.header(field), "", "", ""][:3]
        entry = Field(
            timeline=_as_name(timeline) or field,
            type="number",
            units=units or None,
            description=description or None,
            feed=True,
        )
        return entry, self.folder.interval(field)


def _as_name(text: str) -> str:
    """Return a timeline's name as its feed's topic can have it: no spaces, no dots, no #."""
    return re.sub(r"[\s.#]+", "_", text)
