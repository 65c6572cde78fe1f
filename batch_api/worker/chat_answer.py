"""How the answer to a chat is told: as one object, or in chunks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from batch_api.engine.sequence import FinishReason, Sequence, TokenLogprob
from batch_api.errors import APIError
from batch_api.schemas import chat_completion as wire
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.usage import Usage, usage
from batch_api.worker.choice import Call, CallPart, Choice, Part
from batch_api.worker.event_stream import DONE, event
from batch_api.worker.identity import fingerprint, new_id, now
from batch_api.worker.logprobs import TokenTexts, chat_logprobs

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.engine.engine import Engine

_FIRST = wire.ChunkDelta(role="assistant", content="")


class ChatReply:
    def __init__(
        self, chat: ChatRequest, engine: "Engine", sequences: list[Sequence], choices: list[Choice]
    ) -> None:
        self.sequences = sequences
        self._choices = choices
        self._numbers = {sequence: number for number, sequence in enumerate(sequences)}
        self._chat = chat
        self._texts = TokenTexts(engine.tokenizer) if chat.logprobs else None
        self._shared: dict[str, Any] = {
            "id": new_id("chatcmpl-"),
            "created": now(),
            "model": chat.model,
            "service_tier": UNSET if chat.service_tier is None else "default",
            "system_fingerprint": fingerprint(chat.model, engine),
        }

    def whole(self, deltas: list["Delta"]) -> bytes:
        for delta in deltas:
            self._choices[self._numbers[delta.sequence]].add(delta)
        completion = wire.ChatCompletion(
            **self._shared,
            choices=[self._choice(*each) for each in enumerate(self._choices)],
            usage=self._usage,
            metadata=self._chat.metadata or UNSET,
        )
        return msgspec.json.encode(completion)

    def opening(self) -> Iterator[bytes]:
        for number in range(len(self._choices)):
            yield self._chunk(number, _FIRST)

    def more(self, deltas: list["Delta"]) -> Iterator[bytes]:
        for delta in deltas:
            number = self._numbers[delta.sequence]
            choice = self._choices[number]
            for part in choice.add(delta):
                yield self._chunk(number, self._delta(part))
            if choice.finish_reason is not None:
                yield self._chunk(number, wire.ChunkDelta(), self._finish_reason(choice))

    def closing(self) -> Iterator[bytes]:
        if self._chat.wants_usage_chunk:
            yield event(wire.ChatCompletionChunk(**self._shared, choices=[], usage=self._usage))
        yield DONE

    def failure(self, error: APIError) -> Iterator[bytes]:
        yield event(error.body)

    def _choice(self, number: int, choice: Choice) -> wire.Choice:
        return wire.Choice(
            index=number,
            message=self._message(choice),
            finish_reason=self._finish_reason(choice),
            logprobs=self._logprobs(choice.logprobs),
        )

    def _message(self, choice: Choice) -> wire.AnswerMessage:
        if not choice.calls:
            return wire.AnswerMessage(choice.text or None if choice.must_call else choice.text)
        if self._chat.is_legacy:
            call = _function(choice.calls[0])
            return wire.AnswerMessage(choice.text or None, function_call=call)
        calls = [wire.ToolCall(call.id, _function(call)) for call in choice.calls]
        return wire.AnswerMessage(choice.text or None, tool_calls=calls)

    def _finish_reason(self, choice: Choice) -> str:
        if choice.calls and choice.finish_reason is FinishReason.STOP:
            return "function_call" if self._chat.is_legacy else "tool_calls"
        return str(choice.finish_reason)

    def _chunk(
        self, number: int, delta: wire.ChunkDelta, finish_reason: str | None = None
    ) -> bytes:
        unsaid = self._choices[number].take_logprobs()
        choice = wire.ChunkChoice(
            index=number,
            delta=delta,
            finish_reason=finish_reason,
            logprobs=self._logprobs(unsaid) if unsaid else None,
        )
        usage = None if self._chat.wants_usage_chunk else UNSET
        return event(wire.ChatCompletionChunk(**self._shared, choices=[choice], usage=usage))

    def _delta(self, part: Part) -> wire.ChunkDelta:
        if isinstance(part, str):
            return wire.ChunkDelta(content=part)
        function = wire.FunctionDelta(
            name=part.begun.name if part.begun else UNSET, arguments=part.arguments
        )
        if self._chat.is_legacy:
            return wire.ChunkDelta(function_call=function)
        return wire.ChunkDelta(tool_calls=[_call_delta(part, function)])

    def _logprobs(self, tokens: list[TokenLogprob]) -> wire.Logprobs | None:
        return chat_logprobs(self._texts, tokens) if self._texts is not None else None

    @property
    def _usage(self) -> Usage:
        """The choices share one prompt."""
        prompt_tokens = len(self.sequences[0].prompt)
        return usage(prompt_tokens, sum(choice.tokens for choice in self._choices))


def _function(call: Call) -> wire.FunctionCall:
    return wire.FunctionCall(call.name, call.arguments)


def _call_delta(part: CallPart, function: wire.FunctionDelta) -> wire.ToolCallDelta:
    if part.begun is None:
        return wire.ToolCallDelta(part.index, function)
    return wire.ToolCallDelta(part.index, function, id=part.begun.id, type="function")
