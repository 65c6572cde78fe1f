"""The thread that owns the engine, and the only way to it from the event loop.

Nothing here needs torch, so that the server listens before torch is imported.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar

from batch_api.errors import APIError, BadRequest, Unavailable
from batch_api.worker.answer import Answer, AnyDelta

_LOADING_SECONDS = 5  # a client comes back after so long
_STOPPING = "This worker is stopping."


class AnyEngine(Protocol):
    """What the thread drives: the engine, or the embedder."""

    max_sequences: int
    max_length: int
    device: str
    dtype: str

    @property
    def memory_bytes(self) -> int: ...

    @property
    def running(self) -> int:
        """Sequences, also while a step runs."""
        ...

    @property
    def has_work(self) -> bool: ...

    def add(self, sequence: Any) -> None:
        """Raises ValueError for one that it can't run."""
        ...

    def cancel(self, sequence: Any) -> None: ...

    def step(self) -> Collection[AnyDelta]: ...


_Engine = TypeVar("_Engine", bound=AnyEngine)


class Status(StrEnum):
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class EngineFailed(APIError):
    """The cause and its neighbours see it alike, as when the server behind a gateway breaks."""

    status = 502
    code = "engine_failed"

    def __init__(self) -> None:
        super().__init__("The engine failed while processing your request.")


class EngineThread(Generic[_Engine]):
    """All but `_run` and what it calls belongs to the event loop that made this."""

    def __init__(self, load: Callable[[], _Engine], *, max_waiting: int) -> None:
        """`max_waiting`: sequences beyond those that run at once."""
        self.status = Status.LOADING
        self.engine: _Engine | None = None
        self.failure: Exception | None = None
        self.failed = asyncio.Event()
        self.max_waiting = max_waiting
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._commands: SimpleQueue[Callable[[_Engine], None] | None] = SimpleQueue()
        self._answers: dict[Hashable, Answer[Any]] = {}
        self._places_taken = 0
        self._vacated = asyncio.Event()

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> int:
        return self.engine.running if self.engine else 0

    @property
    def waiting(self) -> int:
        return max(0, len(self._answers) - self.running)

    @contextmanager
    def place(self) -> Iterator[_Engine]:
        """A place for one sequence, from before its prompt is made until its answer is sent.

        Raises Unavailable where there is none.
        """
        engine = self._open_engine()
        if self._places_taken >= engine.max_sequences + self.max_waiting:
            raise Unavailable("The queue is full; try again soon.")
        self._places_taken += 1
        try:
            yield engine
        finally:
            self._places_taken -= 1
            if not self._places_taken:
                self._vacated.set()

    @contextmanager
    def answer(self, sequence: Hashable, *, whole: bool) -> Iterator[Answer[Any]]:
        """Run the sequence; leaving the context before its end cancels it."""
        if self.failure is not None:
            raise EngineFailed
        answer = self._answers[sequence] = Answer[Any](whole=whole)
        self._commands.put(lambda engine: self._add(engine, sequence))
        try:
            yield answer
        finally:
            if self._answers.pop(sequence, None) is not None:
                self._commands.put(lambda engine: engine.cancel(sequence))

    async def drain(self, grace_seconds: float) -> None:
        """Take no more sequences; let those that are here end, or end them after the grace."""
        self.status = Status.STOPPING
        self._vacated.clear()
        if not self._places_taken:
            return
        try:
            async with asyncio.timeout(grace_seconds):
                await self._vacated.wait()
        except TimeoutError:
            self._fail_all(lambda: Unavailable(_STOPPING))

    async def stop(self, timeout_seconds: float) -> bool:
        """Whether the thread has ended; where it is loading or in a long step it may not."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, timeout_seconds)
        return not self._thread.is_alive()

    def _fail_all(self, error: Callable[[], APIError]) -> None:
        """Every sequence that is here ends with an error of its own."""
        for answer in self._answers.values():
            answer.fail(error())
        self._answers.clear()

    def _open_engine(self) -> _Engine:
        if self.status in (Status.STOPPING, Status.FAILED):
            raise Unavailable(_STOPPING)
        if self.engine is None:
            raise Unavailable("The model is loading.", retry_after_seconds=_LOADING_SECONDS)
        return self.engine

    # On the event loop, called by the thread.

    def _on_loaded(self, engine: _Engine) -> None:
        self.engine = engine
        if self.status is Status.LOADING:
            self.status = Status.READY

    def _on_deltas(self, deltas: Collection[AnyDelta]) -> None:
        for delta in deltas:
            if (answer := self._answers.get(delta.sequence)) is None:
                continue  # cancelled while the step ran
            answer.put(delta)
            if answer.is_finished:
                del self._answers[delta.sequence]

    def _on_refused(self, sequence: Hashable, reason: str) -> None:
        if answer := self._answers.pop(sequence, None):
            answer.fail(BadRequest(reason, param="messages", code="context_length_exceeded"))

    def _on_failure(self, error: Exception) -> None:
        self.status = Status.FAILED
        self.failure = error
        self._fail_all(EngineFailed)
        self.failed.set()

    # In the thread.

    def _run(self) -> None:
        try:
            engine = self._load()
            self._call(self._on_loaded, engine)
            while self._obey(engine):
                self._step(engine)
        except Exception as error:  # noqa: BLE001 - nobody may wait for a dead engine
            self._call(self._on_failure, error)

    def _obey(self, engine: _Engine) -> bool:
        """Do what was commanded, waiting for something to do; False if that is to stop."""
        while not engine.has_work or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command(engine)
        return True

    def _step(self, engine: _Engine) -> None:
        """All of a step's deltas wake the event loop once."""
        if deltas := engine.step():
            self._call(self._on_deltas, deltas)

    def _add(self, engine: _Engine, sequence: Hashable) -> None:
        try:
            engine.add(sequence)
        except ValueError as error:  # too long after all: a matter of this sequence alone
            self._call(self._on_refused, sequence, str(error))

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)
