"""`POST /chat` and `POST /chat/batched`: one query, or many of which some may be wrong."""

from typing import Annotated

from fastapi import APIRouter, Depends

from batch_api.api.deps import Parts, TakeMore, TheClient, json_body
from batch_api.api.dialects.asking import Asker
from batch_api.api.documents import errors, takes
from batch_api.queries import answer_each
from batch_api.schemas.queries import Queries, Query, QueryAnswer, QueryAnswers

router = APIRouter(tags=["dialects"])

_RESPONSES = errors(404, 429, 502, body=True)


@router.post("/chat", operation_id="chat", openapi_extra=takes(Query), responses=_RESPONSES)
async def chat(
    query: Annotated[Query, Depends(json_body(Query))], parts: Parts, client: TheClient
) -> QueryAnswer:
    asker = await Asker.ready(parts, query.model)
    asking = asker.ask(query.messages, model=query.model)
    completion = await client.wait_for(asking)
    return QueryAnswer(chat_id=query.chat_id, response=completion.text)


@router.post(
    "/chat/batched", operation_id="chatBatched", openapi_extra=takes(Queries), responses=_RESPONSES
)
async def batched(
    queries: Annotated[Queries, Depends(json_body(Queries))],
    parts: Parts,
    client: TheClient,
    take_more: TakeMore,
) -> QueryAnswers:
    """Every query gets its answer or its error, in order. Each counts as a request."""
    given = queries.queries
    take_more(len(given) - 1)
    named = [query.get("model") for query in given if isinstance(query, dict)]
    asker = await Asker.ready(parts, *named)

    async def answer(query: Query) -> str:
        return (await asker.ask(query.messages, model=query.model)).text

    return await client.wait_for(answer_each(given, answer, at_once=asker.at_once))
