"""How a client of a worker says whether somebody waits for the answer."""

PRIORITY_HEADER = "x-batch-api-priority"
"""`batch` or `interactive` (the default): a worker runs interactive requests first."""
