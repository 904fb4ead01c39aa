"""Detector packets: from UDP to frames, and back for simulators and replay.

===============  ==================================================================================
description      the ``detector:`` section of a site: shape, streams, packets, places of modules
formats          the packet header; how pixels lie in a packet
layout           which pixels of the image a packet holds
receiver         `Receiver`: sockets → frames on the frame plane, the thread around the kernel
account          a receiver's books of an acquisition
kernel           the compiled loop: every payload predicted into place, corrected where wrong
sockets          UDP sockets with large buffers, and what is said when something is refused
sender           many packets with one call, at a steady pace
simulator        frames that can be worked out again, with disturbances
recording        recorded packets, read and written
replay           recorded packets sent again
===============  ==================================================================================

Import from the modules: the site file needs `description` alone, without the compiled parts.
"""
