"""`python -m frostline` is the command `frostline`."""

from frostline.cli import run

run()
