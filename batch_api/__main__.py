"""`python -m batch_api` is `batch-api`."""

from batch_api.cli import app

app()
