"""Authentication: OpenID login, bearer tokens, browser sessions, and account data."""
