"""The data plane: verifies signed requests and forwards what may pass."""
