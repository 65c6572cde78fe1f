"""A self-hosted server that speaks OpenAI's Files and Batches API."""

from importlib.metadata import version

__version__ = version("batch-api")
