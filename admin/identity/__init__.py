"""Who is asking: bearer tokens, sessions, and what is known of the account."""
