"""API keys, shared by gateway and admin service: records, sealed secrets, storage, caching, invalidation, usage."""
