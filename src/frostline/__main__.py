"""`python -m frostline` is the command `frostline`."""

from frostline.cli import main

main()
