"""``python -m deploy.cli``: the same command line, for whoever has no ``gerbang`` on the path."""

from deploy.cli import main

main(prog_name="gerbang")
