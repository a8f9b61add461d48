"""The schema's history, one line for the whole database. Run by ``gateway.keys.migrate``; imported by nothing."""
