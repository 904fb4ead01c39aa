"""A writer for detectors that send Stream V2 or its Jungfraujoch dialect: frames over ZeroMQ in, NXmx files out.

`StreamWriter` does the work; the command ``jfjoch_writer`` (`command`) and the node ``jungfraujoch_writer`` are faces
on it. It stands where the Jungfraujoch writer stands: same options, same messages about finalised files.
"""

from sisockdaq.jungfraujoch.options import WriterOptions
from sisockdaq.jungfraujoch.service import StreamWriter

__all__ = ["StreamWriter", "WriterOptions"]
