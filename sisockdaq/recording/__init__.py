"""Recording series: what nodes publish goes into HDF5 files, without a gap as long as a node still has it.

`structure` (pure) says which fields share a table, `following` (pure) keeps a feed whole, `disk` writes the files in a
thread of its own, `recorder` listens to the network and asks nodes for what was missed. The file writer node is a face
on it.
"""

from sisockdaq.recording.recorder import LOOK, Recorder, RecordingOptions

__all__ = ["LOOK", "Recorder", "RecordingOptions"]
