"""`batch-api worker`: one model on one device, in one process."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from batch_api import logs
from batch_api.commands.addresses import urls_of
from batch_api.commands.listening import bind, listen, stop_on_signals
from batch_api.commands.models import check_model
from batch_api.engine.errors import ModelNotLoadable
from batch_api.errors import Unusable
from batch_api.gate import USUAL, Visitors
from batch_api.settings import Task, served_name
from batch_api.worker.app import create_app
from batch_api.worker.engine_thread import AnyEngine, EngineThread
from batch_api.worker.parent import exit_with_parent as end_with_parent

GRACE_SECONDS = 30.0
_SENDING_SECONDS = 3  # for answers that are ready when the server stops
_THREAD_SECONDS = 1.0
_FAILED, _UNUSABLE = 1, 2

log = logging.getLogger(__name__)


def serve_worker(
    *,
    model: str,
    task: Task,
    served_model_name: str | None,
    host: str,
    port: int,
    allowed_hosts: Sequence[str],
    device: str | None,
    dtype: str | None,
    max_sequences: int | None,
    max_length: int | None,
    max_waiting: int,
    log_level: str,
    exit_with_parent: bool,
) -> int:
    """Until a signal comes, or the engine fails; the exit code."""
    logs.configure(log_level)
    if exit_with_parent:
        end_with_parent()
    try:
        check_model(model)
        with bind(host, port) as listener:
            load = _loader(
                model,
                task,
                device=device,
                dtype=dtype,
                max_sequences=max_sequences,
                max_length=max_length,
            )
            name = served_model_name or served_name(model)
            return run_worker(
                load,
                model=name,
                task=task,
                listener=listener,
                visitors=Visitors(hosts=[host.lower() for host in allowed_hosts]),
                max_waiting=max_waiting,
            )
    except Unusable as error:
        return _refuse(error)


def run_worker(
    load: Callable[[], AnyEngine],
    *,
    model: str,
    task: Task = "generate",
    listener: socket.socket,
    visitors: Visitors = USUAL,
    max_waiting: int,
    grace_seconds: float = GRACE_SECONDS,
) -> int:
    """`load` is called in the engine's thread; `model` is the name that requests use."""
    serving = _serve(
        load,
        model=model,
        task=task,
        listener=listener,
        visitors=visitors,
        max_waiting=max_waiting,
        grace_seconds=grace_seconds,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        thread, has_ended = runner.run(serving)
    log.info("worker stopped")
    code = _exit_code(thread)
    if not has_ended:  # in the middle of loading or of a step: torch can't be interrupted
        _exit_at_once(code)
    return code


async def _serve(
    load: Callable[[], AnyEngine],
    *,
    model: str,
    task: Task,
    listener: socket.socket,
    visitors: Visitors,
    max_waiting: int,
    grace_seconds: float,
) -> tuple[EngineThread[AnyEngine], bool]:
    """The thread, and whether it has ended."""
    stop, over = stop_on_signals(message="worker stopping"), asyncio.Event()
    thread = EngineThread(load, max_waiting=max_waiting)
    app = create_app(thread, model=model, task=task)
    thread.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            listen(app, listener, over, grace_seconds=_SENDING_SECONDS, visitors=visitors)
        )
        print(_banner(listener, model), flush=True)
        await _first_of(stop.wait(), thread.failed.wait())
        if thread.failure is None:
            await thread.drain(grace_seconds)
        over.set()
    return thread, await thread.stop(_THREAD_SECONDS)


def _loader(model: str, task: Task, **options: Any) -> Callable[[], AnyEngine]:
    given = {name: value for name, value in options.items() if value is not None}

    def load() -> AnyEngine:
        # Torch's threads spin while they wait for each other: with one other busy process on the
        # CPU a step took 43 to 111 ms instead of 5 to 8. Read when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        folder = str(Path(model).expanduser())
        # Imported here: torch takes seconds.
        if task == "embed":
            from batch_api.engine.embedder import Embedder

            return Embedder.load(folder, **given)
        from batch_api.engine.engine import Engine

        return Engine.load(folder, **given)

    return load


def _exit_code(thread: EngineThread[AnyEngine]) -> int:
    if isinstance(thread.failure, ModelNotLoadable):
        return _refuse(thread.failure)
    if thread.failure is not None:
        log.error("the engine failed", exc_info=thread.failure)
        return _FAILED
    return 0


def _refuse(error: Exception) -> int:
    print(f"batch-api: {error}", file=sys.stderr)
    return _UNUSABLE


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _banner(listener: socket.socket, model: str) -> str:
    return f"batch-api worker listens on {' and '.join(urls_of(listener))} and loads {model}."
