"""The upstream side: pools, balancing, health, header hygiene, identity, tunnels."""
