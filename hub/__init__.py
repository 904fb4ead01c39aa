"""The registry of the network's data nodes."""
