"""The JSON API: thin handlers over the services, and the machinery that both JSON sides share. No rules."""
