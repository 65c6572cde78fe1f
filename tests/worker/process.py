"""A worker as a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.server import Program, free_port

_END_SECONDS = 100


class WorkerProcess(Program):
    """`batch-api worker`; it is started once its model is loaded."""

    ready_path = "/health"

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__(
            ["batch_api", "worker", *arguments],
            log=folder / "worker.log",
            port=free_port(),
            environment={},
        )

    def _is_ready(self) -> bool:
        return super()._is_ready() and bool(msgspec.json.decode(self.fetch("/health"))["ready"])


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    said: str


@contextlib.contextmanager
def running(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python module with its arguments; what it prints first has been waited for."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def wait(process: "subprocess.Popen[str]") -> Ended:
    _, said = process.communicate(timeout=_END_SECONDS)
    return Ended(process.returncode, said)


def run(*command: str) -> Ended:
    with running(*command) as process:
        return wait(process)
