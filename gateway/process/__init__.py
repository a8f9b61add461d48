"""The process model: the parent, its workers, the channel between them, and the wiring of one worker."""
