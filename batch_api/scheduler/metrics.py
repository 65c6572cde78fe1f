"""What the scheduler counts and times for `/metrics`; nothing here decides anything."""

from collections.abc import Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram

from batch_api.lifecycle import BatchStatus, DeliveryState, RequestState
from batch_api.scheduler.answers import Answered

_COMMIT_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)
"""From a sync of a fast disk to a writer that has to wait for others."""

_BATCH_BUCKETS = (
    *(1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800),
    *(43_200, 64_800, 86_400, 172_800, 604_800),
)
"""From a moment to a week; closest around the day that most batches may take."""


class Again(StrEnum):
    """Why a request has to be sent once more."""

    FAILED = "failed"
    """The attempt counts against the request."""
    COMPANY = "company"
    """It broke among others, and nobody is blamed yet."""
    REFUSED = "refused"
    """No upstream takes it now."""
    AWAY = "away"
    """The upstream that may have its model can't be asked."""


_OUTCOMES = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "failed",
    DeliveryState.GIVEN_UP: "given_up",
}


class SchedulerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._lines = Counter(
            "batch_api_lines_ended",
            "Lines of batches that have ended, by how.",
            ["outcome"],
            registry=registry,
        )
        self._again = Counter(
            "batch_api_retries",
            "Attempts after which a line has to be sent again, by why.",
            ["reason"],
            registry=registry,
        )
        self._late = Counter(
            "batch_api_late_answers",
            "Answers that came after their lease was taken back, and were dropped.",
            registry=registry,
        )
        self._recovered = Counter(
            "batch_api_recovered_requests",
            "Lines whose lease was taken back: at the start, or as it ran out.",
            ["when"],
            registry=registry,
        )
        self._input_tokens = Counter(
            "batch_api_input_tokens", "Tokens read, of lines that were answered.", registry=registry
        )
        self._output_tokens = Counter(
            "batch_api_output_tokens",
            "Tokens written, of lines that were answered.",
            registry=registry,
        )
        self._commit_seconds = Histogram(
            "batch_api_commit_seconds",
            "To record a group of answers, until it is on the disk.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "batch_api_batch_duration_seconds",
            "From a batch's creation to its end, by its last status.",
            ["status"],
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self._webhooks = Counter(
            "batch_api_webhooks",
            "Attempts to tell of the end of a batch, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A rate needs to see a counter before its first step."""
        for state in RequestState:
            if state.is_final:
                self._lines.labels(state)
        for reason in Again:
            self._again.labels(reason)
        for status in BatchStatus:
            if status.is_final:
                self._batch_seconds.labels(status)
        for when in ("start", "overdue"):
            self._recovered.labels(when)
        for outcome in _OUTCOMES.values():
            self._webhooks.labels(outcome)

    def recorded(self, answers: Sequence[Answered], *, late: int, seconds: float) -> None:
        """`answers`: those that counted."""
        completed = sum(answer.settlement.state == RequestState.COMPLETED for answer in answers)
        self.ended(RequestState.COMPLETED, completed)
        self.ended(RequestState.FAILED, len(answers) - completed)
        self._late.inc(late)
        self._input_tokens.inc(sum(answer.usage.input_tokens for answer in answers))
        self._output_tokens.inc(sum(answer.usage.output_tokens for answer in answers))
        self._commit_seconds.observe(seconds)

    def ended(self, state: RequestState, lines: int) -> None:
        self._lines.labels(state).inc(lines)

    def again(self, reason: Again) -> None:
        self._again.labels(reason).inc()

    def recovered(self, requests: int, *, at_start: bool) -> None:
        self._recovered.labels("start" if at_start else "overdue").inc(requests)

    def batch_ended(self, status: BatchStatus, *, seconds: float) -> None:
        self._batch_seconds.labels(status).observe(seconds)

    def told(self, state: DeliveryState) -> None:
        """What a webhook is after an attempt."""
        self._webhooks.labels(_OUTCOMES[state]).inc()
