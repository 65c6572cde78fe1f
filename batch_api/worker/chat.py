"""`POST /v1/chat/completions`, streamed and not."""

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from msgspec import UNSET

from batch_api.engine.sequence import Priority, SamplingOptions, Sequence
from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest
from batch_api.worker.completion import Completion
from batch_api.worker.deps import (
    ChatBody,
    EngineHere,
    RequestPriority,
    WaitingClient,
)
from batch_api.worker.event_stream import EventStream
from batch_api.worker.prompt import prompt_ids

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(
    chat: ChatBody, priority: RequestPriority, served: EngineHere, client: WaitingClient
) -> Response:
    served.check_model(chat.model)
    with ExitStack() as held:
        engine = held.enter_context(served.engine.place())
        sequence = await client.wait_for(_sequence(chat, engine, priority))
        answer = held.enter_context(served.engine.answer(sequence, whole=not chat.stream))
        deltas = await client.wait_for(answer.take())
        completion = _completion(chat, engine, sequence)
        if not chat.stream:
            return Response(completion.whole(deltas), media_type="application/json")
        return EventStream(completion.events(deltas, answer), held=held.pop_all())


async def _sequence(chat: ChatRequest, engine: "Engine", priority: Priority) -> Sequence:
    prompt = await prompt_ids(engine.tokenizer, chat.messages)
    max_tokens = _max_tokens(chat, len(prompt), engine.max_length)
    return Sequence(prompt, _options(chat, max_tokens), priority=priority)


def _max_tokens(chat: ChatRequest, prompt_tokens: int, max_length: int) -> int:
    """Without a limit of its own, a request gets what fits."""
    room = max_length - prompt_tokens
    max_tokens = chat.token_limit or max(room, 1)
    if max_tokens <= room:
        return max_tokens
    raise BadRequest(
        f"This model's context holds {max_length} tokens, but the messages have {prompt_tokens}"
        f" and the answer needs room for {str(max_tokens)[:20]}.",
        param="messages",
        code="context_length_exceeded",
    )


def _options(chat: ChatRequest, max_tokens: int) -> SamplingOptions:
    return SamplingOptions(
        max_tokens=max_tokens,
        temperature=0 if chat.is_greedy else chat.temperature,
        top_p=1 if chat.is_greedy else chat.top_p,
        seed=chat.seed,
        stop=tuple(chat.stop),
        ignore_end=chat.ignore_eos,
    )


def _completion(chat: ChatRequest, engine: "Engine", sequence: Sequence) -> Completion:
    return Completion(
        model=chat.model,
        prompt_tokens=len(sequence.prompt),
        system_fingerprint=_fingerprint(chat.model, engine),
        service_tier=UNSET if chat.service_tier is None else "default",
        wants_usage_chunk=chat.wants_usage_chunk,
    )


def _fingerprint(model: str, engine: "Engine") -> str:
    """Another model, device or precision may answer the same seed with other words."""
    setup = f"{model} {engine.device} {engine.dtype}"
    return f"fp_{hashlib.sha256(setup.encode()).hexdigest()[:10]}"
