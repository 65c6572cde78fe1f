"""What goes on in a batch of which nothing is to be seen: what is done, or what it waits for."""

from dataclasses import dataclass

from batch_api.api.deps import AllParts
from batch_api.api.readiness import Check
from batch_api.in_words import counted, duration_in_words
from batch_api.lifecycle import BatchStatus
from batch_api.store.tables import BatchRow

_PATIENCE_SECONDS = 2.0
_FIRST_SECONDS = 10.0
"""Nothing in flight says nothing of the workers so soon."""


@dataclass(frozen=True, slots=True)
class Doings:
    """What a sentence is made of."""

    status: BatchStatus
    leased: int
    """Lines of the batch."""
    ended: int
    """Since then: without those that it took over."""
    seconds: float
    """Since it is in progress."""
    in_flight: int
    """Requests at all upstreams."""
    is_disk_full: bool
    check: Check | None
    """Of the upstreams; None if that took too long."""


async def doings(batch: BatchRow, parts: AllParts, *, leased: int) -> str:
    """A sentence, of a batch that is not over."""
    return sentence(
        Doings(
            status=BatchStatus(batch.status),
            leased=leased,
            ended=batch.completed + batch.failed - batch.earlier_completed,
            seconds=parts.clock.now() - (batch.in_progress_at or batch.created_at),
            in_flight=sum(facts.in_flight for facts in parts.upstreams.facts()),
            is_disk_full=parts.blobs.room.is_short(),
            check=await parts.upstream_check.take_within(_PATIENCE_SECONDS),
        )
    )


def sentence(seen: Doings) -> str:
    match seen.status:
        case BatchStatus.VALIDATING:
            return _obstacle(seen) or "Its lines are being checked."
        case BatchStatus.CANCELLING if seen.leased:
            return f"Waiting for {counted(seen.leased, 'line')} that may still be answered."
        case BatchStatus.CANCELLING:
            return "What was not sent is being cancelled."
        case BatchStatus.IN_PROGRESS:
            return _progress(seen)
    return "Its files are being written."


def _progress(seen: Doings) -> str:
    if seen.leased and seen.in_flight and not seen.is_disk_full:
        lines = f"{counted(seen.leased, 'line')} {'is' if seen.leased == 1 else 'are'}"
        return f"{lines} with the workers, or next to be sent; {_since(seen)}."
    if obstacle := _obstacle(seen):
        return obstacle
    if seen.leased:
        is_young = seen.seconds < _FIRST_SECONDS
        return "Its lines are being sent." if is_young else "No worker takes requests now."
    return "Its lines wait for their turn."


def _since(seen: Doings) -> str:
    if seen.ended:
        return "none was answered in the last minute"
    return f"none has been answered yet, after {duration_in_words(seen.seconds)}"


def _obstacle(seen: Doings) -> str | None:
    """What keeps every batch from going on."""
    if seen.is_disk_full:
        return "Nothing is sent: the disk is full."
    match seen.check:
        case {"status": "loading"}:
            return "A worker is loading its model."
        case {"status": "away"} | {"up": 0}:
            return "No worker answers."
    return None
