"""The way of a batch through its statuses, and how long each part of it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from batch_api.store.tables import BatchRow

_STEPS = (
    ("created_at", "Created"),
    ("in_progress_at", "In progress"),
    ("cancelling_at", "Cancelling"),
    ("finalizing_at", "Finalizing"),
    ("completed_at", "Completed"),
    ("failed_at", "Failed"),
    ("expired_at", "Expired"),
    ("cancelled_at", "Cancelled"),
)


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    at: int
    seconds: float | None
    """Until the next one, or until now; None for the last."""


def steps(row: BatchRow, *, now: float) -> Sequence[Step]:
    """In order."""
    reached = [(getattr(row, column), name) for column, name in _STEPS]
    reached = sorted(
        ((at, name) for at, name in reached if at is not None), key=lambda step: step[0]
    )
    ends = [after for (_, _), (after, _) in pairwise(reached)]
    last = None if row.is_over else max(now - reached[-1][0], 0.0)
    return [
        Step(name, at, seconds)
        for (at, name), seconds in zip(
            reached,
            [*(end - at for end, (at, _) in zip(ends, reached, strict=False)), last],
            strict=True,
        )
    ]


def took_seconds(row: BatchRow) -> float | None:
    """From its creation to its end."""
    ends = (row.completed_at, row.failed_at, row.expired_at, row.cancelled_at)
    end = next((at for at in ends if at is not None), None)
    return None if end is None else end - row.created_at
