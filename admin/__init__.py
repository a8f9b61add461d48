"""The key service: account holders create and delete API keys here."""
