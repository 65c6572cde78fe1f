"""What all generating endpoints do: take places, make sequences, run them, send what comes."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastapi import Response

from batch_api.engine.sequence import Priority, Sequence
from batch_api.errors import APIError
from batch_api.worker.answer import Answer
from batch_api.worker.deps import Served
from batch_api.worker.event_stream import EventStream

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.engine.engine import Engine

_Result = TypeVar("_Result")

_MUCH = 1000  # more deltas or logprobs could hold up the event loop while they are told


class Reply(Protocol):
    """How one endpoint tells what its sequences generate."""

    sequences: list[Sequence]

    def whole(self, deltas: list["Delta"]) -> bytes:
        """All in one, when all have ended."""

    def opening(self) -> Iterator[bytes]:
        """The events of a stream before the first delta…"""

    def more(self, deltas: list["Delta"]) -> Iterator[bytes]:
        """…for some deltas…"""

    def closing(self) -> Iterator[bytes]:
        """…after the last one…"""

    def failure(self, error: APIError) -> Iterator[bytes]:
        """…or instead of what is still to come."""


class Question(Protocol):
    """A request that was understood, before there is an engine for it."""

    stream: bool
    answers: int
    priority: Priority
    answers_param: str
    """The parameter that says how many answers there are."""
    is_costly: bool
    """Whether `reply` takes more than a moment: then it is not for the event loop."""

    def reply(self, engine: "Engine") -> Reply:
        """Raises BadRequest."""


class Waiting(Protocol):
    """Somebody for whom work is done."""

    async def wait_for(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Raises ClientDisconnect if nobody waits any more."""
        ...


async def respond(question: Question, served: Served["Engine"], client: Waiting) -> Response:
    """All that it takes is given back, however and whenever this ends."""
    with ExitStack() as held:
        places = served.engine.places(
            question.answers, param=question.answers_param, priority=question.priority
        )
        engine = held.enter_context(places)
        reply = await client.wait_for(_reply(question, engine))
        running = served.engine.answer(reply.sequences, whole=not question.stream)
        answer = held.enter_context(running)
        deltas = await client.wait_for(answer.take())
        if not question.stream:
            return Response(await _whole(reply, deltas), media_type="application/json")
        return EventStream(_events(reply, deltas, answer), held=held.pop_all())


async def _reply(question: Question, engine: "Engine") -> Reply:
    if question.is_costly:
        return await asyncio.to_thread(question.reply, engine)
    return question.reply(engine)


async def _whole(reply: Reply, deltas: list["Delta"]) -> bytes:
    if _is_much(deltas):
        return await asyncio.to_thread(reply.whole, deltas)
    return reply.whole(deltas)


async def _more(reply: Reply, deltas: list["Delta"]) -> Iterable[bytes]:
    if _is_much(deltas):
        return await asyncio.to_thread(lambda: list(reply.more(deltas)))
    return reply.more(deltas)


def _is_much(deltas: list["Delta"]) -> bool:
    return len(deltas) + sum(map(_logprobs, deltas)) > _MUCH


def _logprobs(delta: "Delta") -> int:
    options = delta.sequence.options
    of_answer = len(delta.logprobs) * (1 + (options.logprobs or 0))
    return of_answer + len(delta.prompt_logprobs) * (1 + (options.prompt_logprobs or 0))


async def _events(
    reply: Reply, deltas: list["Delta"], answer: Answer["Delta"]
) -> AsyncIterator[bytes]:
    """The first deltas were already taken from the answer, so that its errors had a status."""
    try:
        for event in reply.opening():
            yield event
        while True:
            for event in await _more(reply, deltas):
                yield event
            if answer.is_taken:
                break
            deltas = await answer.take()
        for event in reply.closing():
            yield event
    except APIError as error:
        for event in reply.failure(error):
            yield event
