"""What must be so of each batch: its status, counts and moments against its requests' rows."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from batch_api.lifecycle import FINAL_STATUSES, BatchStatus, RequestState
from batch_api.store.inspecting.findings import Finding, Kind

_ENDED = (RequestState.COMPLETED, RequestState.FAILED)
_UNRUN = (RequestState.EXPIRED, RequestState.CANCELLED)
_STATES = {
    BatchStatus.VALIDATING: {RequestState.PENDING},
    BatchStatus.FAILED: set[RequestState](),
    BatchStatus.IN_PROGRESS: {RequestState.PENDING, RequestState.LEASED, *_ENDED},
    BatchStatus.FINALIZING: {*_ENDED, RequestState.EXPIRED},
    BatchStatus.COMPLETED: {*_ENDED},
    BatchStatus.EXPIRED: {*_ENDED, RequestState.EXPIRED},
    BatchStatus.CANCELLING: set(RequestState),
    BatchStatus.CANCELLED: {*_ENDED, *_UNRUN},
}
"""Those that the requests of a batch may have."""
_NO_TOTAL = {BatchStatus.VALIDATING, BatchStatus.FAILED}
_MAYBE_TOTAL = {BatchStatus.CANCELLING}

_BATCHES = "SELECT * FROM batches WHERE removed_at IS NULL ORDER BY number"
_REQUESTS = """
    SELECT batch_number, state, count(*) AS requests, count(answers.request_id) AS answers
    FROM requests LEFT JOIN answers ON answers.request_id = requests.id
    GROUP BY batch_number, state
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's row, and how many rows of requests and answers it has."""

    row: sqlite3.Row
    requests: Counter[str] = field(default_factory=Counter)
    """By state; `answers` too."""
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def number(self) -> int:
        return int(self.row["number"])

    @property
    def status(self) -> BatchStatus:
        return BatchStatus(self.row["status"])

    @property
    def total(self) -> int | None:
        total: int | None = self.row["total"]
        return total

    @property
    def takes_over(self) -> bool:
        """It is being validated, and gets answers of an earlier batch meanwhile."""
        is_over = self.status.is_final or self.total is not None
        return not is_over and self.row["earlier_output_file_id"] is not None

    @property
    def is_trimmed(self) -> bool:
        return self.row["trimmed_at"] is not None


def read_batches(database: sqlite3.Connection) -> list[Batch]:
    """Oldest first; those whose status is one, and that are not on their way out."""
    rows = [row for row in database.execute(_BATCHES) if row["status"] in set(BatchStatus)]
    batches = {row["number"]: Batch(row) for row in rows}
    for number, state, requests, answers in database.execute(_REQUESTS):
        if number in batches:
            batches[number].requests[state] = requests
            batches[number].answers[state] = answers
    return list(batches.values())


def broken_promises(batch: Batch) -> Iterator[Finding]:
    lost = list(_of_lines(batch))
    has_lost_lines = any(kind == Kind.LOST_LINES for kind, _ in lost)
    for kind, what in (
        *_of_counts(batch),
        *lost,
        *_of_states(batch),
        *_of_answers(batch),
        *_of_moments(batch),
    ):
        # The counts of a batch that is over are what clients were told.
        is_told = kind == Kind.WRONG_COUNTS and batch.status.is_final
        yield Finding(kind, batch.id, what, is_beyond_repair=has_lost_lines or is_told)


def _of_counts(batch: Batch) -> Iterator[tuple[Kind, str]]:
    """What it takes over from an earlier batch is counted when all of it is there."""
    if batch.takes_over:
        return
    for state in _ENDED:
        told, counted = batch.row[state], batch.requests[state]
        if told != counted:
            yield Kind.WRONG_COUNTS, f"It counts {told} requests as {state}, and {counted} are."


def _of_lines(batch: Batch) -> Iterator[tuple[Kind, str]]:
    """completed + failed + unrun == total."""
    rows, status = batch.requests.total(), batch.status
    if batch.total is None and status not in _NO_TOTAL | _MAYBE_TOTAL:
        yield Kind.LOST_LINES, f"It is {status}, and nobody knows how many lines it has."
    elif batch.total is not None and status in _NO_TOTAL:
        yield Kind.WRONG_STATE, f"It is {status}, and has a total of {batch.total} lines already."
    elif batch.total is not None and batch.total != rows:
        yield Kind.LOST_LINES, f"It has {batch.total} lines, but rows of {rows} requests."


def _of_states(batch: Batch) -> Iterator[tuple[Kind, str]]:
    allowed = _STATES[batch.status] | ({RequestState.COMPLETED} if batch.takes_over else set())
    for state, requests in batch.requests.items():
        if state not in allowed:
            yield Kind.WRONG_STATE, f"It is {batch.status}, but {requests} requests are {state}."
    if batch.status == BatchStatus.IN_PROGRESS and not batch.requests.keys() - set(_ENDED):
        yield Kind.STRANDED, "It is in progress, but all its requests have ended."
    if batch.status == BatchStatus.FAILED and not batch.row["errors"]:
        yield Kind.WRONG_STATE, "It has failed, and nothing says why."


def _of_answers(batch: Batch) -> Iterator[tuple[Kind, str]]:
    """Until a batch is final, each ended request has its answer; after that they are dropped."""
    for state, answers in batch.answers.items():
        if answers and (state not in _ENDED or batch.is_trimmed):
            yield Kind.STRAY_ANSWER, f"{answers} answers are kept of requests that are {state}."
    if not batch.status.is_final:
        for state in _ENDED:
            if missing := batch.requests[state] - batch.answers[state]:
                yield Kind.MISSING_ANSWER, f"{missing} requests are {state} without an answer."


def _of_moments(batch: Batch) -> Iterator[tuple[Kind, str]]:
    own = f"{batch.status}_at"
    if batch.status != BatchStatus.VALIDATING and batch.row[own] is None:
        yield Kind.WRONG_MOMENT, f"It is {batch.status}, but has no {own}."
    for status in sorted(FINAL_STATUSES - {batch.status}):
        if batch.row[f"{status}_at"] is not None:
            yield Kind.WRONG_MOMENT, f"It is {batch.status}, but has a {status}_at."
    if batch.is_trimmed and not batch.status.is_final:
        yield Kind.WRONG_MOMENT, f"It is {batch.status}, but its answers were dropped."
