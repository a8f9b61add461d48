"""The upstream side of the proxy: connection pools, load balancing, health checks, identity headers, tunnels."""
