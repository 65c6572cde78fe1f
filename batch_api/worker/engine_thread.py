"""The thread that owns the engine, and the only way to it from the event loop.

Nothing here needs torch, so that the server listens before torch is imported.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar

from batch_api.engine.errors import PromptTooLong
from batch_api.engine.sequence import Priority
from batch_api.errors import APIError, BadRequest, Unavailable
from batch_api.worker.answer import Answer, AnyDelta

_KEPT_FREE = 8  # one waiting place in so many is for single requests
_LOADING_SECONDS = 5  # a client comes back after so long
_NOT_FINITE = "The model's numbers are not finite here; this precision may be too small for it."
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


class Watch(Protocol):
    """Is told, on the event loop, what becomes of sequences."""

    def begun(self, sequences: Collection[Any]) -> None: ...

    def went_on(self, deltas: Collection[Any]) -> None:
        """Also of sequences that were left meanwhile."""

    def left(self, sequences: Collection[Any]) -> None:
        """Nobody waits for them any more; most have ended."""

    def failed(self, sequences: Collection[Any]) -> None:
        """The engine refused them, or died with them."""


class _Nobody:
    def begun(self, sequences: Collection[Any]) -> None: ...

    def went_on(self, deltas: Collection[Any]) -> None: ...

    def left(self, sequences: Collection[Any]) -> None: ...

    def failed(self, sequences: Collection[Any]) -> None: ...


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
        self._watch: Watch = _Nobody()

    def start(self) -> None:
        self._thread.start()

    def watch(self, watch: Watch) -> None:
        """Have it told of all that happens from now on."""
        self._watch = watch

    @property
    def running(self) -> int:
        return self.engine.running if self.engine else 0

    @property
    def waiting(self) -> int:
        return max(0, len(self._answers) - self.running)

    @contextmanager
    def places(self, count: int, *, param: str, priority: Priority) -> Iterator[_Engine]:
        """Places for so many sequences, from before their prompts are made until all is sent.

        Raises Unavailable where there are not so many now, and BadRequest, which names `param`,
        where there never are.
        """
        engine = self._open_engine()
        self._check_room(count, engine.max_sequences + self.max_waiting, param, priority)
        self._places_taken += count
        try:
            yield engine
        finally:
            self._places_taken -= count
            if not self._places_taken:
                self._vacated.set()

    @contextmanager
    def answer(self, sequences: Sequence[Hashable], *, whole: bool) -> Iterator[Answer[Any]]:
        """Run them; leaving the context cancels those that have not ended."""
        if self.failure is not None:
            raise EngineFailed
        answer = Answer[Any](len(sequences), whole=whole)
        self._answers.update(dict.fromkeys(sequences, answer))
        self._watch.begun(sequences)
        self._commands.put(lambda engine: self._add(engine, sequences))
        try:
            yield answer
        finally:
            self._watch.left(sequences)
            left = [each for each in sequences if self._answers.pop(each, None) is not None]
            if left:
                self._commands.put(lambda engine: _cancel(engine, left))

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

    def _check_room(self, count: int, room: int, param: str, priority: Priority) -> None:
        """However many batches wait, there are places for a chat."""
        if count > room:
            raise BadRequest(
                f"This server generates at most {room} answers at once, not {count}.",
                param=param,
                code="integer_above_max_value" if param == "n" else "array_above_max_length",
            )
        kept_free = self.max_waiting // _KEPT_FREE if priority is Priority.BATCH else 0
        if self._places_taken + count > max(room - kept_free, count):
            raise Unavailable("The queue is full; try again soon.")

    def _fail_all(self, error: Callable[[], APIError]) -> None:
        """Every answer that is waited for ends with an error of its own."""
        for answer in set(self._answers.values()):
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
        self._watch.went_on(deltas)
        for delta in deltas:
            if (answer := self._answers.get(delta.sequence)) is None:
                continue  # cancelled while the step ran
            if delta.is_broken:
                answer.fail(APIError(_NOT_FINITE, code="not_finite"))
            else:
                answer.put(delta)
            if delta.is_last:
                del self._answers[delta.sequence]

    def _on_refused(self, sequence: Hashable, error: ValueError) -> None:
        is_too_long = isinstance(error, PromptTooLong)
        code = "context_length_exceeded" if is_too_long else "invalid_value"
        self._watch.failed([sequence])
        if answer := self._answers.pop(sequence, None):
            answer.fail(BadRequest(f"{error}.", code=code))

    def _on_failure(self, error: Exception) -> None:
        self.status = Status.FAILED
        self.failure = error
        self._watch.failed(self._answers)
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

    def _add(self, engine: _Engine, sequences: Sequence[Hashable]) -> None:
        for sequence in sequences:
            try:
                engine.add(sequence)
            except ValueError as error:  # too long after all: a matter of this answer alone
                self._call(self._on_refused, sequence, error)

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)


def _cancel(engine: AnyEngine, sequences: Sequence[Hashable]) -> None:
    for sequence in sequences:
        engine.cancel(sequence)
