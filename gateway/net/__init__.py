"""Who is a trusted peer, the client's address, the PROXY protocol, TLS contexts, listening: one of each, for gateway and admin alike."""
