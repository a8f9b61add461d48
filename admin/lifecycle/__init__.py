"""The life cycle of a key: the policy (pure), and the service that creates, lists and deletes keys."""
