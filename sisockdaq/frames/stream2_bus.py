"""The frame plane as DECTRIS Stream V2 over ZeroMQ, for other machines and other programs.

A sender binds and pushes, receivers connect and pull; several receivers share the images. There is no way back and no
acknowledgement: what could not be handed over is counted at the sender, what did not come at the receiver.
"""

from sisockdaq.frames._stream2_receiver import Stream2Consumer, Stream2Frame
from sisockdaq.frames._stream2_sender import OUR_KEY, Stream2Output, Stream2Producer, Stream2Sender

__all__ = ["OUR_KEY", "Stream2Consumer", "Stream2Frame", "Stream2Output", "Stream2Producer", "Stream2Sender"]
