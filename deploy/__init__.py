"""How Gerbang is run: the command line and the embedded local stack. Nothing imports this package."""
