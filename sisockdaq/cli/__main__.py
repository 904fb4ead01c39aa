"""``python -m sisockdaq.cli``: the command without its script, as the supervisor starts parts."""

from sisockdaq.cli import main

main()
