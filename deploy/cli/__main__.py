"""``python -m deploy.cli``: the command line without an installed ``gerbang``."""

from deploy.cli import main

main(prog_name="gerbang")
