"""Text files of rows ``time value``, served in parts: an index of byte ranges, a cache of decoded blocks.

`Folder` knows the files of one folder and answers what rows they have in an interval; `TextFilesNode` is the node over
such a folder, of which a node author says only how files are named. What they promise is in `folder` and `node`.
"""

from __future__ import annotations

from sisockdaq.textfiles.file import Form, TextFile
from sisockdaq.textfiles.folder import Folder, Named
from sisockdaq.textfiles.node import TextFilesNode

__all__ = ["Folder", "Form", "Named", "TextFile", "TextFilesNode"]
