"""The data nodes that come with sisockdaq, one folder each; found through the ``sisockdaq.nodes`` entry points."""
