"""``python -m sisockdaq.jungfraujoch``: the command ``jfjoch_writer``."""

from sisockdaq.jungfraujoch.command import main

main()
