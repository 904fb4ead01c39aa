"""Detector packets become frames: the receiver node.

Options and fields are in `node`; packets are received by `sisockdaq.detector.receiver`.
"""

from sisockdaq.nodes.detector_receiver.node import DetectorReceiver

__all__ = ["DetectorReceiver"]
