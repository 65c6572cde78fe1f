"""Many queries in one call, as API and worker answer them: side by side, and each on its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from batch_api.envelope import validate
from batch_api.errors import APIError
from batch_api.schemas.queries import Query, QueryAnswer, QueryAnswers, QueryError


async def answer_each(
    queries: list[Any], answer: Callable[[Query], Awaitable[str]], *, at_once: int
) -> QueryAnswers:
    """`answer` raises APIError if there is no answer to a query."""
    gate = asyncio.Semaphore(at_once)

    async def one(given: Any) -> QueryAnswer | QueryError:
        try:
            query = validate(Query, given)
            async with gate:
                return QueryAnswer(chat_id=query.chat_id, response=await answer(query))
        except APIError as error:
            return QueryError(chat_id=_chat_id(given), error=error.message)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(given)) for given in queries]
    responses = [task.result() for task in tasks]
    has_failed = any(isinstance(response, QueryError) for response in responses)
    return QueryAnswers(partial_success=has_failed, responses=responses)


def _chat_id(given: Any) -> str:
    id = given.get("chat_id") if isinstance(given, dict) else None
    return id if isinstance(id, str) else ""
