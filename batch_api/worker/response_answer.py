"""How the answer to `/v1/responses` is told: as one object, or in events."""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from batch_api.engine.sequence import FinishReason, Sequence
from batch_api.errors import APIError
from batch_api.schemas.chat_completion import TokenInfo
from batch_api.schemas.responses import ResponseRequest
from batch_api.worker.choice import Choice
from batch_api.worker.event_stream import event
from batch_api.worker.identity import new_id, now
from batch_api.worker.logprobs import TokenTexts, chat_logprobs
from batch_api.worker.response_items import Event, ResponseItems

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.engine.engine import Engine


class ResponseReply:
    def __init__(
        self, body: ResponseRequest, engine: "Engine", sequence: Sequence, choice: Choice
    ) -> None:
        self.sequences = [sequence]
        self._choice = choice
        self._items = ResponseItems()
        self._texts = TokenTexts(engine.tokenizer) if body.wants_logprobs else None
        self._numbers = count()
        self._response = _response(body)

    def whole(self, deltas: list["Delta"]) -> bytes:
        for _ in self._events(deltas):
            pass
        return msgspec.json.encode(self._ended)

    def opening(self) -> Iterator[bytes]:
        for type in ("response.created", "response.in_progress"):
            yield self._sent({"type": type, "response": self._response})

    def more(self, deltas: list["Delta"]) -> Iterator[bytes]:
        yield from map(self._sent, self._events(deltas))

    def closing(self) -> Iterator[bytes]:
        response = self._ended
        yield self._sent({"type": f"response.{response['status']}", "response": response})

    def failure(self, error: APIError) -> Iterator[bytes]:
        """The SDK raises what has the key `error`, and only yields what is an event."""
        yield self._sent({"type": "error", **error.body["error"], **error.body})

    def _events(self, deltas: list["Delta"]) -> Iterator[Event]:
        for delta in deltas:
            for part in self._choice.add(delta):
                yield from self._items.add(part, self._logprobs())
        if self._choice.finish_reason is not None:
            yield from self._items.close(self._status)

    def _logprobs(self) -> list[TokenInfo]:
        if self._texts is None:
            return []
        return chat_logprobs(self._texts, self._choice.take_logprobs()).content

    def _sent(self, told: Event) -> bytes:
        return event({**told, "sequence_number": next(self._numbers)}, name=told["type"])

    @property
    def _status(self) -> str:
        is_cut = self._choice.finish_reason is FinishReason.LENGTH
        return "incomplete" if is_cut else "completed"

    @property
    def _ended(self) -> dict[str, Any]:
        cut = {"reason": "max_output_tokens"} if self._status == "incomplete" else None
        return self._response | {
            "status": self._status,
            "completed_at": now(),
            "incomplete_details": cut,
            "output": self._items.output,
            "usage": self._usage,
        }

    @property
    def _usage(self) -> dict[str, Any]:
        read, written = len(self.sequences[0].prompt), self._choice.tokens
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }


def _response(body: ResponseRequest) -> dict[str, Any]:
    """Before there is an answer: what was asked for."""
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None},
        "service_tier": "default",
        "temperature": body.temperature,
        "text": body.text.model_dump(by_alias=True, exclude_none=True),
        "tool_choice": body.tool_choice,
        "tools": [tool.model_dump() for tool in body.tools],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": body.truncation,
        "usage": None,
    }
