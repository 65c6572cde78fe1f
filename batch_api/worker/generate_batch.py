"""`POST /generate_batch`: many simple queries in one call, which share the engine's steps."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter

from batch_api.envelope import validate
from batch_api.queries import answer_each
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.queries import Query, QueryAnswers
from batch_api.worker.chat import ChatQuestion
from batch_api.worker.deps import EngineHere, QueriesBody, RequestPriority, WaitingClient
from batch_api.worker.generation import respond

router = APIRouter()

_AT_ONCE = 64
"""Queries of one call in the engine; the others wait here, so that the queue has room."""

_Result = TypeVar("_Result")


@router.post("/generate_batch")
async def generate_batch(
    queries: QueriesBody, priority: RequestPriority, served: EngineHere, client: WaitingClient
) -> QueryAnswers:
    async def answer(query: Query) -> str:
        chat = validate(
            ChatRequest, {"model": query.model or served.model, "messages": query.messages}
        )
        served.check_model(chat.model)
        response = await respond(ChatQuestion(chat, priority), served, _Unwatched())
        return msgspec.json.decode(response.body, type=_Completion).choices[0].message.content

    return await client.wait_for(answer_each(queries.queries, answer, at_once=_AT_ONCE))


class _Unwatched:
    """The client is watched once, for all queries."""

    async def wait_for(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return await work


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]
