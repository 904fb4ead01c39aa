"""What stands behind `sisockdaq.base`: serving, feeds, workers, and membership of the network."""
