"""Runs `batch-api` within the test's own process, which has imported everything already.

As a process of its own each call takes a second or two; what only shows there (signals, terminals,
what is imported when) is tested there.
"""

import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from typer.testing import CliRunner

from batch_api.cli import app

Ended = subprocess.CompletedProcess[str]

_CHANGED_LOGGERS = (None, "batch_api", "uvicorn")


def batch_api(*arguments: str, **environment: str) -> Ended:
    with _logging_as_before():
        result = CliRunner().invoke(app, arguments, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(arguments, result.exit_code, result.stdout, result.stderr)


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """Some commands set it up for their process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in _CHANGED_LOGGERS}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.captureWarnings(False)
