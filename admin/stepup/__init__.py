"""Prove it again: factors, and one-use challenges bound to one intent."""
