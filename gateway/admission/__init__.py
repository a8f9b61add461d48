"""May this request pass? Pure rules; only the replay guard and the limiter's store do I/O."""
