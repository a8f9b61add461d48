"""Clock, ticker, background tasks, and the outbox: what everything that runs on an event loop shares."""
