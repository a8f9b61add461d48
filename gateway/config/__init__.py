"""The gateway's configuration, and the differences between two versions of it."""
