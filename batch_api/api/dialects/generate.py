"""`POST /v1/generate` and `POST /v1/batch-generate`: prompts in, texts out."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends

from batch_api.api.deps import Parts, TakeMore, TheClient, json_body
from batch_api.api.dialects.asking import Asker
from batch_api.api.documents import errors, takes
from batch_api.errors import APIError
from batch_api.schemas.generations import (
    AllGenerated,
    BatchGeneration,
    Generated,
    Generation,
    NotGenerated,
    Options,
)

router = APIRouter(prefix="/v1", tags=["dialects"])

_RESPONSES = errors(404, 429, 502, body=True)


@router.post(
    "/generate", operation_id="generate", openapi_extra=takes(Generation), responses=_RESPONSES
)
async def generate(
    wanted: Annotated[Generation, Depends(json_body(Generation))], parts: Parts, client: TheClient
) -> Generated:
    asker = await Asker.ready(parts, wanted.model)
    return await client.wait_for(_generate(asker, wanted.prompt, wanted))


@router.post(
    "/batch-generate",
    operation_id="batchGenerate",
    openapi_extra=takes(BatchGeneration),
    responses=_RESPONSES,
)
async def batch_generate(
    wanted: Annotated[BatchGeneration, Depends(json_body(BatchGeneration))],
    parts: Parts,
    client: TheClient,
    take_more: TakeMore,
) -> AllGenerated:
    """Side by side; one that fails says so in its place. Each counts as a request."""
    take_more(len(wanted.prompts) - 1)
    asker = await Asker.ready(parts, wanted.model)
    gate = asyncio.Semaphore(asker.at_once)

    async def one(prompt: str) -> Generated | NotGenerated:
        try:
            async with gate:
                return await _generate(asker, prompt, wanted)
        except APIError as error:
            return NotGenerated(error=error.message)

    async def every() -> AllGenerated:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(prompt)) for prompt in wanted.prompts]
        return AllGenerated(results=[task.result() for task in tasks])

    return await client.wait_for(every())


async def _generate(asker: Asker, prompt: str, options: Options) -> Generated:
    messages = [{"role": "user", "content": prompt}]
    completion = await asker.ask(messages, model=options.model, options=options.sampling)
    read, written = completion.tokens
    return Generated(
        text=completion.text,
        model=completion.model,
        prompt_tokens=read,
        completion_tokens=written,
    )
