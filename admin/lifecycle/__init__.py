"""Keys from creation to deletion: the policy (pure) and the service (one transaction with the audit row)."""
