"""Frames that come whole: streams of messages and new image files, put on the frame plane as packets are.

=========  ======================================================================================================
events     what a feed tells: a series begins, an image, samples of other channels, the end of a series
books      which image belongs to an acquisition, its index, and what was lost: pure
pump       `FramePump`: the thread from a feed to the frame ring, with the books and the counts
node       `SourceNode`: what every node over a feed serves
stream2    a feed of DECTRIS Stream V2 messages
bsread     the messages of bsread, and a feed of them
files      a feed of image files as they appear in a folder
=========  ======================================================================================================

A feed is an edge (sockets, files); it knows nothing of rings or acquisitions. What it can not read it counts by kind
and goes on.
"""
