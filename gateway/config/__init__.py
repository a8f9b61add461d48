"""The gateway's settings, and the differences between two versions of them."""
