"""Counts and times what becomes of sequences, under vLLM's names and with its labels.

All of it on the event loop; one observation takes a few microseconds.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from batch_api.engine.sequence import FinishReason, Sequence

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.engine.embedder import Embedded
    from batch_api.engine.texts import Texts

LABELS = ("model_name", "engine")
ENGINE = "0"
"""vLLM counts the engines of one process; ours has one."""

# vLLM's own, so that the same panels and quantiles serve both; where those begin too late for a
# small model, with finer ones before.
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_BUCKETS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_LENGTH_BUCKETS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000),
)

_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELLED: "abort",
    FinishReason.BROKEN: "error",
}
"""As vLLM calls them."""


@dataclass(slots=True)
class _Course:
    """How far a sequence has come, in monotonic seconds."""

    began: float
    first_token: float = 0.0
    newest_token: float = 0.0
    tokens: int = 0


class _Instruments:
    """Makes metrics of one model."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._registry = registry
        self._labels = (model, ENGINE)

    def counter(self, name: str, told: str) -> Counter:
        return Counter(name, told, LABELS, registry=self._registry).labels(*self._labels)

    def histogram(self, name: str, told: str, buckets: Collection[float]) -> Histogram:
        made = Histogram(name, told, LABELS, buckets=[*buckets], registry=self._registry)
        return made.labels(*self._labels)

    def endings(self) -> dict[FinishReason, Counter]:
        made = Counter(
            "vllm:request_success",
            "Sequences that ended, by how.",
            (*LABELS, "finished_reason"),
            registry=self._registry,
        )
        return {reason: made.labels(*self._labels, word) for reason, word in _REASONS.items()}


class GenerationWatch:
    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        made = _Instruments(registry, model)
        self._courses: dict[Sequence, _Course] = {}
        self._endings = made.endings()
        self._prompt_tokens = made.counter("vllm:prompt_tokens", "Prompt tokens computed.")
        self._tokens = made.counter("vllm:generation_tokens", "Tokens generated.")
        self._first_token = made.histogram(
            "vllm:time_to_first_token_seconds",
            "From a sequence's arrival to its first token.",
            _FIRST_TOKEN_BUCKETS,
        )
        self._between_tokens = made.histogram(
            "vllm:inter_token_latency_seconds",
            "From one token of a sequence to its next.",
            _TOKEN_BUCKETS,
        )
        self._per_token = made.histogram(
            "vllm:request_time_per_output_token_seconds",
            "The mean time between the tokens of a sequence that ended.",
            _TOKEN_BUCKETS,
        )
        self._whole = made.histogram(
            "vllm:e2e_request_latency_seconds",
            "From a sequence's arrival to its end.",
            _REQUEST_BUCKETS,
        )
        self._queued = made.histogram(
            "vllm:request_queue_time_seconds",
            "From a sequence's arrival until it runs.",
            _REQUEST_BUCKETS,
        )
        self._prefill = made.histogram(
            "vllm:request_prefill_time_seconds",
            "From when a sequence runs to its first token.",
            _REQUEST_BUCKETS,
        )
        self._decode = made.histogram(
            "vllm:request_decode_time_seconds",
            "From a sequence's first token to its last.",
            _REQUEST_BUCKETS,
        )
        self._prompt_length = made.histogram(
            "vllm:request_prompt_tokens", "Tokens of a sequence's prompt.", _LENGTH_BUCKETS
        )
        self._answer_length = made.histogram(
            "vllm:request_generation_tokens", "Tokens of a sequence's answer.", _LENGTH_BUCKETS
        )

    def begun(self, sequences: Collection[Any]) -> None:
        now = time.monotonic()
        self._courses.update((sequence, _Course(now)) for sequence in sequences)

    def went_on(self, deltas: Collection[Any]) -> None:
        now, tokens = time.monotonic(), 0
        for delta in deltas:
            course = self._courses.get(delta.sequence)
            if course is not None:
                tokens += delta.tokens
                self._go_on(course, delta, now)
        self._tokens.inc(tokens)

    def left(self, sequences: Collection[Any]) -> None:
        _drop(self._courses, sequences, self._endings[FinishReason.CANCELLED])

    def failed(self, sequences: Collection[Any]) -> None:
        _drop(self._courses, sequences, self._endings[FinishReason.BROKEN])

    def _go_on(self, course: _Course, delta: "Delta", now: float) -> None:
        if course.newest_token:
            self._between_tokens.observe(now - course.newest_token)
        else:
            self._begin_answer(course, delta.sequence, now)
        course.newest_token = now
        course.tokens += delta.tokens
        if delta.finish_reason is not None:
            self._end(course, delta.sequence, delta.finish_reason, now)

    def _begin_answer(self, course: _Course, sequence: Sequence, now: float) -> None:
        course.first_token = now
        self._prompt_tokens.inc(len(sequence.prompt))
        self._first_token.observe(now - course.began)
        if sequence.started_at is not None:
            self._queued.observe(max(0.0, sequence.started_at - course.began))
            self._prefill.observe(now - sequence.started_at)

    def _end(self, course: _Course, sequence: Sequence, reason: FinishReason, now: float) -> None:
        del self._courses[sequence]
        decode_seconds = now - course.first_token
        self._endings[reason].inc()
        self._whole.observe(now - course.began)
        self._decode.observe(decode_seconds)
        self._prompt_length.observe(len(sequence.prompt))
        self._answer_length.observe(course.tokens)
        if course.tokens > 1:
            self._per_token.observe(decode_seconds / (course.tokens - 1))


class EmbeddingWatch:
    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        made = _Instruments(registry, model)
        self._began: dict[Texts, float] = {}
        self._endings = made.endings()
        self._tokens = made.counter("vllm:prompt_tokens", "Tokens of texts embedded.")
        self._whole = made.histogram(
            "vllm:e2e_request_latency_seconds",
            "From the arrival of a request's texts to their vectors.",
            _REQUEST_BUCKETS,
        )

    def begun(self, sequences: Collection[Any]) -> None:
        now = time.monotonic()
        self._began.update((texts, now) for texts in sequences)

    def went_on(self, deltas: Collection[Any]) -> None:
        now = time.monotonic()
        for embedded in deltas:
            self._end(embedded, now)

    def left(self, sequences: Collection[Any]) -> None:
        _drop(self._began, sequences, self._endings[FinishReason.CANCELLED])

    def failed(self, sequences: Collection[Any]) -> None:
        _drop(self._began, sequences, self._endings[FinishReason.BROKEN])

    def _end(self, embedded: "Embedded", now: float) -> None:
        began = self._began.pop(embedded.sequence, None)
        if began is not None:
            self._endings[FinishReason.STOP].inc()
            self._tokens.inc(sum(row.length for row in embedded.sequence.rows))
            self._whole.observe(now - began)


def _drop(watched: dict[Any, Any], sequences: Collection[Any], ending: Counter) -> None:
    """Those that end before their answer; of others nothing is known."""
    for sequence in sequences:
        if watched.pop(sequence, None) is not None:
            ending.inc()
