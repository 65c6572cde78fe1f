"""Statements on `batches`. A move names the status it leaves; no row means the race was lost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import FINAL_STATUSES, BatchStatus, RequestState
from batch_api.store import deliveries
from batch_api.store.pages import Page, rows_after
from batch_api.store.tables import BatchRow, RequestRow


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, added up over requests."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What a group of answers adds to its batch."""

    completed: int
    failed: int
    usage: Usage
    model: str | None = None
    seconds: tuple[float, ...] = ()
    """How long each of the attempts took."""
    refused: int = 0
    """Of those that failed."""


@dataclass(frozen=True, slots=True)
class Running:
    """As much of a batch in progress as its requests need."""

    number: int
    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    expires_at: int | None
    mean_output_tokens: float
    """Of its answers so far."""
    is_waiting: bool
    """It has requests that nobody works on."""


def add(
    session: AsyncSession,
    *,
    id: str,
    endpoint: str,
    completion_window: str,
    input_file_id: str,
    output_file_id: str,
    error_file_id: str,
    created_at: int,
    expires_at: int | None,
    input_bytes: int = 0,
    metadata: dict[str, str] | None = None,
    output_expires_after_seconds: int | None = None,
    continues_id: str | None = None,
    earlier_output_file_id: str | None = None,
    earlier_completed: int = 0,
    webhook_url: str | None = None,
) -> BatchRow:
    row = BatchRow(
        id=id,
        endpoint=endpoint,
        completion_window=completion_window,
        status=BatchStatus.VALIDATING,
        input_file_id=input_file_id,
        input_bytes=input_bytes,
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        created_at=created_at,
        expires_at=expires_at,
        labels=metadata,
        output_expires_after_seconds=output_expires_after_seconds,
        continues_id=continues_id,
        earlier_output_file_id=earlier_output_file_id,
        earlier_completed=earlier_completed,
        webhook_url=webhook_url,
    )
    session.add(row)
    return row


async def get(session: AsyncSession, id: str) -> BatchRow | None:
    row: BatchRow | None = await session.scalar(
        select(BatchRow).where(BatchRow.id == id, BatchRow.removed_at.is_(None))
    )
    return row


async def remove(session: AsyncSession, number: int, *, now: float) -> bool:
    """A final batch: nobody sees it from here on. Its rows are dropped later, its files stay."""
    removed = await session.scalar(
        update(BatchRow)
        .where(
            BatchRow.number == number,
            BatchRow.status.in_(FINAL_STATUSES),
            BatchRow.removed_at.is_(None),
        )
        .values(removed_at=int(now))
        .returning(BatchRow.number)
    )
    return removed is not None


async def retire(session: AsyncSession, *, ended_before: float, now: float) -> int:
    """Remove those that ended before that moment; return how many."""
    ended_at = func.coalesce(*(getattr(BatchRow, f"{final}_at") for final in FINAL_STATUSES))
    retired = await session.scalars(
        update(BatchRow)
        .where(
            BatchRow.status.in_(FINAL_STATUSES),
            BatchRow.removed_at.is_(None),
            ended_at < int(ended_before),
        )
        .values(removed_at=int(now))
        .returning(BatchRow.number)
    )
    return len(retired.all())


async def removed(session: AsyncSession) -> int | None:
    """The oldest whose rows are still to be dropped."""
    number: int | None = await session.scalar(
        select(BatchRow.number)
        .where(BatchRow.removed_at.is_not(None))
        .order_by(BatchRow.number)
        .limit(1)
    )
    return number


async def drop(session: AsyncSession, number: int) -> None:
    """The row of a removed batch without requests."""
    await session.execute(
        delete(BatchRow).where(BatchRow.number == number, BatchRow.removed_at.is_not(None))
    )


async def labelled(
    session: AsyncSession, labels: Mapping[str, str], *, limit: int
) -> Sequence[str]:
    """The ids of the newest with this metadata."""
    carried = [BatchRow.labels[name].as_string() == value for name, value in labels.items()]
    ids = (
        select(BatchRow.id)
        .where(*carried, BatchRow.removed_at.is_(None))
        .order_by(BatchRow.number.desc())
        .limit(limit)
    )
    return (await session.scalars(ids)).all()


async def page(
    session: AsyncSession,
    *,
    after: str | None,
    limit: int,
    statuses: Collection[BatchStatus] = (),
) -> Page[BatchRow]:
    """Newest first; of all statuses if none is named.

    Raises UnknownCursor if no batch has the id `after`.
    """
    wanted = select(BatchRow).where(BatchRow.removed_at.is_(None))
    if statuses:
        wanted = wanted.where(BatchRow.status.in_(statuses))
    rows = await rows_after(session, wanted, BatchRow, after=after, limit=limit, order="desc")
    return Page.of((await session.scalars(rows)).all(), limit)


async def open_ones(session: AsyncSession, *statuses: BatchStatus) -> Sequence[BatchRow]:
    """Oldest first."""
    rows = (
        select(BatchRow)
        .where(BatchRow.trimmed_at.is_(None), BatchRow.status.in_(statuses))
        .order_by(BatchRow.number)
    )
    return (await session.scalars(rows)).all()


async def count_active(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).where(*is_active())) or 0


async def count_queued_lines(session: AsyncSession) -> int:
    """Those of active batches that have no answer yet."""
    queued = func.sum(BatchRow.total - BatchRow.completed - BatchRow.failed)
    return await session.scalar(select(queued).where(*is_active())) or 0


def is_active() -> tuple[ColumnElement[bool], ...]:
    """As an index has it: a tenant may have very many batches that are over."""
    active = [status for status in BatchStatus if not status.is_final]
    return BatchRow.trimmed_at.is_(None), BatchRow.status.in_(active)


async def running(session: AsyncSession) -> list[Running]:
    """The batches in progress, oldest first."""
    waiting = exists().where(
        RequestRow.batch_number == BatchRow.number, RequestRow.state == RequestState.PENDING
    )
    answers = BatchRow.completed + BatchRow.failed
    rows = await session.execute(
        select(
            BatchRow.number,
            BatchRow.id,
            BatchRow.tenant,
            BatchRow.endpoint,
            BatchRow.input_file_id,
            BatchRow.expires_at,
            (1.0 * BatchRow.output_tokens / case((answers > 0, answers), else_=1)).label(
                "mean_output_tokens"
            ),
            waiting.label("is_waiting"),
        )
        .where(BatchRow.trimmed_at.is_(None), BatchRow.status == BatchStatus.IN_PROGRESS)
        .order_by(BatchRow.number)
    )
    return [Running(**row) for row in rows.mappings()]


async def tenants_to_validate(session: AsyncSession) -> Sequence[str]:
    return (await session.scalars(select(BatchRow.tenant).where(*_unread()).distinct())).all()


async def to_validate(session: AsyncSession, *, tenant: str, now: float) -> BatchRow | None:
    """A batch whose lines are not all read yet, of the tenant.

    One of any tenant's that is being cancelled comes first, or is past its deadline, for it waits
    for no upstream; then the one whose deadline is nearest, for it waits no longer than until then.
    """
    is_over = or_(BatchRow.status == BatchStatus.CANCELLING, BatchRow.expires_at <= now)
    row: BatchRow | None = await session.scalar(
        select(BatchRow)
        .where(*_unread(), or_(BatchRow.tenant == tenant, is_over))
        .order_by(BatchRow.status == BatchStatus.VALIDATING, BatchRow.expires_at, BatchRow.number)
        .limit(1)
    )
    return row


def _unread() -> tuple[ColumnElement[bool], ...]:
    return (
        BatchRow.trimmed_at.is_(None),
        BatchRow.status.in_([BatchStatus.VALIDATING, BatchStatus.CANCELLING]),
        BatchRow.total.is_(None),
    )


async def start(session: AsyncSession, number: int, *, now: float) -> bool:
    return await _move(
        session,
        number,
        BatchStatus.VALIDATING,
        BatchStatus.IN_PROGRESS,
        in_progress_at=int(now),
    )


async def set_total(session: AsyncSession, number: int, total: int) -> None:
    await session.execute(update(BatchRow).where(BatchRow.number == number).values(total=total))


async def fail(
    session: AsyncSession,
    number: int,
    *,
    errors: list[Any],
    now: float,
    webhook_urls: Collection[str],
) -> bool:
    """The input is not valid; no request was run."""
    return await _end(
        session,
        number,
        BatchStatus.VALIDATING,
        BatchStatus.FAILED,
        now=now,
        webhook_urls=webhook_urls,
        trimmed_at=int(now),
        errors=errors,
    )


async def abandon(
    session: AsyncSession,
    number: int,
    *,
    errors: list[Any],
    now: float,
    webhook_urls: Collection[str],
) -> bool:
    """Cancelled while validating, and the input is not valid: there is nothing to publish."""
    return await _end(
        session,
        number,
        BatchStatus.CANCELLING,
        BatchStatus.CANCELLED,
        now=now,
        webhook_urls=webhook_urls,
        trimmed_at=int(now),
        errors=errors,
        total=0,
    )


async def cancel(session: AsyncSession, id: str, *, now: float) -> bool:
    cancelled = await session.scalar(
        update(BatchRow)
        .where(
            BatchRow.id == id,
            BatchRow.status.in_([s for s in BatchStatus if s.can_become(BatchStatus.CANCELLING)]),
        )
        .values(status=BatchStatus.CANCELLING, cancelling_at=int(now))
        .returning(BatchRow.number)
    )
    return cancelled is not None


async def tally(session: AsyncSession, number: int, tally: Tally) -> None:
    """Add to the counts; the batch's model is the first that answered."""
    usage = tally.usage
    await session.execute(
        update(BatchRow)
        .where(BatchRow.number == number)
        .values(
            completed=BatchRow.completed + tally.completed,
            failed=BatchRow.failed + tally.failed,
            refused=BatchRow.refused + tally.refused,
            input_tokens=BatchRow.input_tokens + usage.input_tokens,
            cached_tokens=BatchRow.cached_tokens + usage.cached_tokens,
            output_tokens=BatchRow.output_tokens + usage.output_tokens,
            reasoning_tokens=BatchRow.reasoning_tokens + usage.reasoning_tokens,
            model=func.coalesce(BatchRow.model, tally.model),
        )
    )


async def finalize_if_done(session: AsyncSession, number: int, *, now: float) -> bool:
    return await _move(
        session,
        number,
        BatchStatus.IN_PROGRESS,
        BatchStatus.FINALIZING,
        BatchRow.completed + BatchRow.failed == BatchRow.total,
        finalizing_at=int(now),
    )


async def due(session: AsyncSession, *, now: float) -> Sequence[BatchRow]:
    """In progress, and past the deadline."""
    rows = await open_ones(session, BatchStatus.IN_PROGRESS)
    return [row for row in rows if row.expires_at is not None and row.expires_at <= now]


async def cut_off(session: AsyncSession, number: int, *, now: float) -> bool:
    """The deadline has come: finalize with what there is."""
    return await _move(
        session,
        number,
        BatchStatus.IN_PROGRESS,
        BatchStatus.FINALIZING,
        finalizing_at=int(now),
    )


async def mark_finalizing(session: AsyncSession, number: int, *, now: float) -> None:
    """The files of a cancelled batch begin to be written."""
    await session.execute(
        update(BatchRow)
        .where(BatchRow.number == number, BatchRow.finalizing_at.is_(None))
        .values(finalizing_at=int(now))
    )


async def finish(
    session: AsyncSession,
    number: int,
    left: BatchStatus,
    final: BatchStatus,
    *,
    now: float,
    webhook_urls: Collection[str],
) -> bool:
    return await _end(session, number, left, final, now=now, webhook_urls=webhook_urls)


async def untrimmed(session: AsyncSession) -> int | None:
    """The oldest final batch whose answers still lie in the database."""
    number: int | None = await session.scalar(
        select(BatchRow.number)
        .where(BatchRow.trimmed_at.is_(None), BatchRow.status.in_(FINAL_STATUSES))
        .order_by(BatchRow.number)
        .limit(1)
    )
    return number


async def mark_trimmed(session: AsyncSession, number: int, *, now: float) -> None:
    await session.execute(
        update(BatchRow).where(BatchRow.number == number).values(trimmed_at=int(now))
    )


async def _end(
    session: AsyncSession,
    number: int,
    left: BatchStatus,
    final: BatchStatus,
    *,
    now: float,
    webhook_urls: Collection[str],
    **values: Any,
) -> bool:
    """The only way into a final status: who is to hear of it is written down with it.

    `webhook_urls`: who hears of every batch.
    """
    assert final.is_final
    ended = await _move(session, number, left, final, **{f"{final}_at": int(now)}, **values)
    if ended:
        await deliveries.add(session, number, ended_at=int(now), webhook_urls=webhook_urls)
    return ended


async def _move(
    session: AsyncSession,
    number: int,
    left: BatchStatus,
    new: BatchStatus,
    *conditions: Any,
    **values: Any,
) -> bool:
    assert left.can_become(new)
    moved = await session.scalar(
        update(BatchRow)
        .where(BatchRow.number == number, BatchRow.status == left, *conditions)
        .values(status=new, **values)
        .returning(BatchRow.number)
    )
    return moved is not None
