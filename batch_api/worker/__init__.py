"""One process, one GPU: HTTP in front, a thread with the engine behind."""
