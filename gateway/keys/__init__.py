"""The shared domain: key records, the vault that seals secrets, store, caches, lookup, invalidation."""
