"""Python's own settings for the router's processes; found by them because this folder is on their ``PYTHONPATH``.

The router holds some 250,000 objects that live as long as it does. A full garbage collection over them stops every
message for about 100 ms, and with the interpreter's defaults one comes every few thousand messages. Young objects are
collected as before, only in larger lots; full collections become rare.
"""

import gc

gc.set_threshold(10_000, 20, 100)
