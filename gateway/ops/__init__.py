"""The operations port."""
