"""Event-loop utilities: clock, ticker, background tasks, write batching; and the model of rate limits."""
