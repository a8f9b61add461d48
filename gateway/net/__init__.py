"""Networking shared by gateway and admin service: trusted proxies, client address, PROXY protocol, TLS, listening sockets."""
