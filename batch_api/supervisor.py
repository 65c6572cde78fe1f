"""Workers as child processes: started, watched, restarted, and ended with this process."""

import asyncio
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain

from batch_api.errors import Unusable
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_END_GRACE_SECONDS = 10.0
_NVIDIA_SMI_SECONDS = 10.0
_USELESS_TO_RESTART = 2
"""The exit code of a command that was called wrongly; it has said why.

Only at the first start: the same command has run since then, so that what is in its way now (the
memory, the disk, the hub) may go away again.
"""


class WorkerUnusable(Unusable):
    """A worker ended for a reason that a restart does not mend."""


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """How to start one worker. `gpu` is None for the CPU."""

    model: str
    task: str
    served_model_name: str
    port: int
    gpu: str | None
    max_length: int | None
    max_sequences: int | None
    dtype: str | None
    log_level: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, stop: asyncio.Event) -> None:
        """Keep it running until `stop`. Raises WorkerUnusable."""
        backoff_seconds = _FIRST_BACKOFF_SECONDS
        is_first = True
        while not stop.is_set():
            started = time.monotonic()
            code = await self._run_once(stop)
            if stop.is_set():
                return
            if code == _USELESS_TO_RESTART and is_first:
                raise WorkerUnusable(f"The worker for {self.model} can't run.")
            is_first = False
            if time.monotonic() - started > _HEALTHY_SECONDS:
                backoff_seconds = _FIRST_BACKOFF_SECONDS
            log.error("worker ended", extra={"code": code, "restart_in_seconds": backoff_seconds})
            await wait(stop, backoff_seconds)
            backoff_seconds = min(2 * backoff_seconds, _LONGEST_BACKOFF_SECONDS)

    async def _run_once(self, stop: asyncio.Event) -> int:
        """Its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            # The worker ends when this pipe does, also if this process is killed.
            stdin=asyncio.subprocess.PIPE,
            # A Ctrl-C is for this process, which lets the worker finish first.
            start_new_session=True,
            env=self._environment,
        )
        log.info("worker started", extra={"pid": process.pid, "port": self.port, "gpu": self.gpu})
        ended = asyncio.ensure_future(process.wait())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else await _end(process)
        finally:
            stopped.cancel()
            if process.returncode is None:
                process.kill()
            await ended

    @property
    def _command(self) -> Sequence[str]:
        chosen = {
            "--served-model-name": self.served_model_name,
            "--max-length": self.max_length,
            "--max-sequences": self.max_sequences,
            "--dtype": self.dtype,
        }
        options = [(name, str(value)) for name, value in chosen.items() if value is not None]
        return [
            *(
                sys.executable,
                "-m",
                "batch_api",
                "worker",
                "--model",
                self.model,
                "--task",
                self.task,
            ),
            *chain.from_iterable(options),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--log-level", self.log_level, "--exit-with-parent"),
        ]

    @property
    def _environment(self) -> dict[str, str]:
        chosen = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        return os.environ | chosen


@asynccontextmanager
async def supervised(workers: Sequence[WorkerProcess]) -> AsyncIterator[None]:
    """Runs the workers for as long as the block runs."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()


async def visible_gpus(*, timeout_seconds: float = _NVIDIA_SMI_SECONDS) -> list[str]:
    """The ids by which CUDA_VISIBLE_DEVICES names the GPUs that this process may use.

    Raises WorkerUnusable if the driver does not answer.
    """
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    if (nvidia_smi := shutil.which("nvidia-smi")) is None:
        return []
    process = await asyncio.create_subprocess_exec(
        *(nvidia_smi, "--query-gpu=index", "--format=csv,noheader"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            listed, _ = await process.communicate()
    except TimeoutError as error:
        process.kill()
        with suppress(TimeoutError):  # a process that hangs in the driver can't be killed
            await asyncio.wait_for(process.wait(), 1)
        raise WorkerUnusable(
            "nvidia-smi does not answer; name the GPUs in CUDA_VISIBLE_DEVICES."
        ) from error
    return listed.decode().split() if process.returncode == 0 else []


async def _end(process: asyncio.subprocess.Process) -> int:
    """Ask it to stop, then make it."""
    process.terminate()
    try:
        async with asyncio.timeout(_END_GRACE_SECONDS):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()
