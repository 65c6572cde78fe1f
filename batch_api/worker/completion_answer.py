"""How the answer to a completion is told: as one object, or in chunks."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from batch_api.engine.sequence import Sequence
from batch_api.errors import APIError
from batch_api.schemas import completions as wire
from batch_api.schemas.usage import Usage, usage
from batch_api.worker.completion_teller import CompletionTeller
from batch_api.worker.event_stream import DONE, event
from batch_api.worker.identity import fingerprint, new_id, now

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.engine.engine import Engine


class CompletionReply:
    """Several sequences for each prompt, one after the other."""

    def __init__(
        self,
        body: wire.CompletionRequest,
        engine: "Engine",
        sequences: list[Sequence],
        *,
        echoes: list[str],
    ) -> None:
        """`echoes`: what stands before each answer."""
        self.sequences = sequences
        self._body = body
        self._tellers = {
            each: CompletionTeller(body, engine, prompt=each.prompt, echo=echo)
            for each, echo in zip(sequences, echoes, strict=True)
        }
        self._numbers = {sequence: number for number, sequence in enumerate(sequences)}
        self._shared: dict[str, Any] = {
            "id": new_id("cmpl-"),
            "created": now(),
            "model": body.model,
            "system_fingerprint": fingerprint(body.model, engine),
        }

    def whole(self, deltas: list["Delta"]) -> bytes:
        for delta in deltas:
            self._tellers[delta.sequence].add(delta)
        choices = [each.tell(index) for index, each in enumerate(self._told())]
        completion = wire.Completion(**self._shared, choices=choices, usage=self._usage)
        return msgspec.json.encode(completion)

    def opening(self) -> Iterator[bytes]:
        return iter(())

    def more(self, deltas: list["Delta"]) -> Iterator[bytes]:
        usage = None if self._body.wants_usage_chunk else UNSET
        for delta in deltas:
            teller = self._tellers[delta.sequence]
            teller.add(delta)
            if teller.has_news:
                choice = teller.tell(self._numbers[delta.sequence])
                yield event(wire.Completion(**self._shared, choices=[choice], usage=usage))

    def closing(self) -> Iterator[bytes]:
        if self._body.wants_usage_chunk:
            yield event(wire.Completion(**self._shared, choices=[], usage=self._usage))
        yield DONE

    def failure(self, error: APIError) -> Iterator[bytes]:
        yield event(error.body)

    def _told(self) -> Iterator[CompletionTeller]:
        """The best `n` of each prompt's."""
        tellers, size = list(self._tellers.values()), self._body.generated
        for first in range(0, len(tellers), size):
            group = tellers[first : first + size]
            if size > self._body.n:
                group.sort(key=lambda each: each.mean_logprob, reverse=True)
            yield from group[: self._body.n]

    @property
    def _usage(self) -> Usage:
        prompts = self.sequences[:: self._body.generated]
        prompt_tokens = sum(len(sequence.prompt) for sequence in prompts)
        return usage(prompt_tokens, sum(each.tokens for each in self._tellers.values()))
