"""The JSON API of the account holder: thin handlers over the services, and what both JSON APIs share."""
