"""From deltas to the answer: one object, or server-sent events."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
from msgspec import UNSET, UnsetType

from batch_api.errors import APIError
from batch_api.schemas.chat_completion import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    ChunkDelta,
    Usage,
)
from batch_api.worker.answer import Answer

if TYPE_CHECKING:
    from batch_api.engine.engine import Delta

_DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What all parts of one answer share."""

    model: str
    prompt_tokens: int
    system_fingerprint: str
    service_tier: str | UnsetType
    wants_usage_chunk: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, deltas: list["Delta"]) -> bytes:
        answer = ChatCompletion(
            **self._shared,
            choices=[Choice(AnswerMessage(_text(deltas)), str(deltas[-1].finish_reason))],
            usage=self._usage(_tokens(deltas)),
        )
        return _encode(answer)

    async def events(self, first: list["Delta"], answer: "Answer[Delta]") -> AsyncIterator[bytes]:
        """`first` was already taken from the answer, so that its errors still had a status."""
        try:
            async for chunk in self._chunks(first, answer):
                yield _event(chunk)
        except APIError as error:
            yield _event(error.body)
        else:
            yield _DONE

    async def _chunks(
        self, deltas: list["Delta"], answer: "Answer[Delta]"
    ) -> AsyncIterator[ChatCompletionChunk]:
        yield self._chunk(ChunkDelta(role="assistant", content=""))
        tokens = 0
        while True:
            tokens += _tokens(deltas)
            if text := _text(deltas):
                yield self._chunk(ChunkDelta(content=text))
            if reason := deltas[-1].finish_reason:
                break
            deltas = await answer.take()
        yield self._chunk(ChunkDelta(), finish_reason=reason)
        if self.wants_usage_chunk:
            yield ChatCompletionChunk(**self._shared, choices=[], usage=self._usage(tokens))

    def _chunk(self, delta: ChunkDelta, finish_reason: str | None = None) -> ChatCompletionChunk:
        usage = None if self.wants_usage_chunk else UNSET
        return ChatCompletionChunk(
            **self._shared, choices=[ChunkChoice(delta, finish_reason)], usage=usage
        )

    @property
    def _shared(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "service_tier": self.service_tier,
            "system_fingerprint": self.system_fingerprint,
        }

    def _usage(self, completion_tokens: int) -> Usage:
        return Usage(self.prompt_tokens, completion_tokens, self.prompt_tokens + completion_tokens)


def _text(deltas: list["Delta"]) -> str:
    return "".join([delta.text for delta in deltas])


def _tokens(deltas: list["Delta"]) -> int:
    return sum([delta.tokens for delta in deltas])


def _event(content: Any) -> bytes:
    return b"data: " + _encode(content) + b"\n\n"
