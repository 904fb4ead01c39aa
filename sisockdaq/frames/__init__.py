"""The frame plane: how pixels travel between processes, with every frame accounted for."""
