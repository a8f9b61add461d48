"""Deployment: the command line and the local stack. Nothing imports this package."""
