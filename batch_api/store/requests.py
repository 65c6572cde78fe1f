"""Statements on `requests` and their `answers`. Hot: Core statements, many rows at a time."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    LargeBinary,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import RequestState
from batch_api.store.pages import Page
from batch_api.store.tables import AnswerRow, RequestRow

_COLUMNS_OF_A_LEASE = (
    RequestRow.id,
    RequestRow.batch_number,
    RequestRow.line,
    RequestRow.custom_id,
    RequestRow.attempt,
    RequestRow.failures,
    RequestRow.body_offset,
    RequestRow.body_length,
)


@dataclass(frozen=True, slots=True)
class Place:
    """One valid line of an input file, and where its body lies (bytes)."""

    line: int
    custom_id: str
    body_offset: int
    body_length: int
    answer: bytes | None = None
    """A line of the output, if an earlier batch has answered it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a request; `attempt` fences it."""

    id: int
    batch_number: int
    line: int
    custom_id: str
    attempt: int
    failures: int
    body_offset: int
    body_length: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a leased request ended: `state` is completed or failed, `line` goes into its file."""

    lease: Lease
    state: RequestState
    line: bytes
    seconds: float | None = None
    """How long the attempt took; None if no upstream was asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One input line at the end of its batch; `answer` is missing if it was never answered."""

    line: int
    custom_id: str
    state: RequestState
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Line:
    """What has become of one input line so far."""

    line: int
    custom_id: str
    state: RequestState
    attempts: int
    failures: int
    seconds: float | None
    """How long the attempt took that ended it."""
    error: bytes | None
    """Its line of the error file, if it has failed and the database still has it."""


@dataclass(frozen=True, slots=True)
class Detail:
    """All that is known of one input line."""

    told: Line
    """But for its error, which is an answer too."""
    body_offset: int
    body_length: int
    answer: bytes | None
    """The beginning of its line of the output or error file, while the database has it."""


async def add(session: AsyncSession, batch_number: int, places: Iterable[Place]) -> None:
    """In the order of dispatch."""
    places = list(places)
    await _execute_many(
        session,
        insert(RequestRow),
        [
            {
                "batch_number": batch_number,
                "line": place.line,
                "custom_id": place.custom_id,
                "body_offset": place.body_offset,
                "body_length": place.body_length,
                "state": RequestState.PENDING if place.answer is None else RequestState.COMPLETED,
            }
            for place in places
        ],
    )
    answered = [place for place in places if place.answer is not None]
    if answered:
        await _add_answers(session, batch_number, answered)


async def remove(session: AsyncSession, batch_number: int, *, limit: int) -> int:
    """Forget up to `limit` lines of a batch; return how many.

    To validate it anew, or because it failed or is removed.
    """
    some = select(RequestRow.id).where(RequestRow.batch_number == batch_number).limit(limit)
    ids = (await session.scalars(some)).all()
    await session.execute(delete(AnswerRow).where(AnswerRow.request_id.in_(ids)))
    await session.execute(delete(RequestRow).where(RequestRow.id.in_(ids)))
    return len(ids)


async def lease(
    session: AsyncSession, batch_number: int, *, limit: int, now: float, until: float
) -> list[Lease]:
    """Up to `limit` requests that may run now, in the order of dispatch. Monotonic moments."""
    free = (
        select(RequestRow.id)
        .where(
            RequestRow.batch_number == batch_number,
            RequestRow.state == RequestState.PENDING,
            RequestRow.not_before <= now,
        )
        .order_by(RequestRow.id)
        .limit(limit)
    )
    connection = await session.connection()
    leased = await connection.execute(
        update(RequestRow)
        .where(RequestRow.id.in_(free))
        .values(state=RequestState.LEASED, leased_until=until, attempt=RequestRow.attempt + 1)
        .returning(*_COLUMNS_OF_A_LEASE)
    )
    return sorted((Lease(**row) for row in leased.mappings()), key=lambda lease: lease.id)


async def settle(session: AsyncSession, settlements: Sequence[Settlement]) -> list[Settlement]:
    """Record how requests ended; return the ones that counted.

    An answer whose lease has gone to somebody else meanwhile is dropped.
    """
    newest = await attempts(session, [settlement.lease.id for settlement in settlements])
    counted = [s for s in settlements if newest.get(s.lease.id) == s.lease.attempt]
    if counted:
        await _end(session, counted)
        await _execute_many(
            session,
            insert(AnswerRow),
            [{"request_id": s.lease.id, "line": s.line} for s in counted],
        )
    return counted


async def attempts(session: AsyncSession, ids: Sequence[int]) -> Mapping[int, int]:
    """The attempt of each of these requests that is leased, by its id."""
    rows = await session.execute(
        select(RequestRow.id, RequestRow.attempt).where(
            RequestRow.id.in_(ids), RequestRow.state == RequestState.LEASED
        )
    )
    return dict(rows.all())


async def renew(session: AsyncSession, ids: Sequence[int], *, until: float) -> Mapping[int, int]:
    """Prolong leases that this process holds: one process writes, so the ids are enough.

    Gives the attempt of each of these requests that is leased, by its id.
    """
    rows = await session.execute(
        update(RequestRow)
        .where(RequestRow.id.in_(ids), RequestRow.state == RequestState.LEASED)
        .values(leased_until=until)
        .returning(RequestRow.id, RequestRow.attempt)
    )
    return dict(rows.all())


async def release(session: AsyncSession, held: Lease, *, failures: int, not_before: float) -> bool:
    """Give a lease back, to be tried again from `not_before` on."""
    released = await session.scalar(
        update(RequestRow)
        .where(
            RequestRow.id == held.id,
            RequestRow.attempt == held.attempt,
            RequestRow.state == RequestState.LEASED,
        )
        .values(
            state=RequestState.PENDING,
            leased_until=None,
            failures=failures,
            not_before=not_before,
        )
        .returning(RequestRow.id)
    )
    return released is not None


async def put_back(session: AsyncSession, unsent: Sequence[Lease], *, not_before: float) -> None:
    """Give leases back under which no upstream took anything: these were no attempts.

    Their numbers are given out again, and still fence: nothing can come of the leases that had
    them, and what had a smaller one is late as before. So a lease is put back once, by who has it.
    """
    is_held = (
        RequestRow.id == bindparam("request_id"),
        RequestRow.attempt == bindparam("held_attempt"),
    )
    uncounted = RequestRow.attempt - 1
    back = (
        update(RequestRow)
        .where(*is_held, RequestRow.state == RequestState.LEASED)
        .values(
            state=RequestState.PENDING,
            leased_until=None,
            not_before=not_before,
            attempt=uncounted,
        )
    )
    is_cut_off = [RequestRow.state == it for it in (RequestState.CANCELLED, RequestState.EXPIRED)]
    ended = update(RequestRow).where(*is_held, or_(*is_cut_off))
    held = [{"request_id": lease.id, "held_attempt": lease.attempt} for lease in unsent]
    # In this order: what is pending then may have the number that was held.
    await _execute_many(session, ended.values(attempt=uncounted), held)
    await _execute_many(session, back, held)


async def reclaim(session: AsyncSession, *, now: float) -> int:
    """Take back the leases that ran out."""
    return await _change(
        session,
        RequestRow.state == RequestState.LEASED,
        RequestRow.leased_until <= now,
        state=RequestState.PENDING,
        leased_until=None,
    )


async def recover(session: AsyncSession) -> int:
    """At start: whoever held a lease is dead, and its clock is gone with it."""
    await _change(
        session,
        RequestRow.state == RequestState.PENDING,
        RequestRow.not_before > 0,
        not_before=0.0,
    )
    return await _change(
        session,
        RequestRow.state == RequestState.LEASED,
        state=RequestState.PENDING,
        leased_until=None,
        not_before=0.0,
    )


async def end_unrun(
    session: AsyncSession, batch_number: int, state: RequestState, *, leased_too: bool
) -> int:
    """Cancel or expire what has not been answered."""
    ended = [RequestState.PENDING] + [RequestState.LEASED] * leased_too
    return await _change(
        session,
        RequestRow.batch_number == batch_number,
        RequestRow.state.in_(ended),
        state=state,
        leased_until=None,
    )


async def is_any_overdue(session: AsyncSession, *, now: float) -> bool:
    overdue = exists().where(
        RequestRow.state == RequestState.LEASED, RequestRow.leased_until <= now
    )
    return bool(await session.scalar(select(overdue)))


async def is_any_leased(session: AsyncSession, batch_number: int) -> bool:
    leased = exists().where(
        RequestRow.batch_number == batch_number, RequestRow.state == RequestState.LEASED
    )
    return bool(await session.scalar(select(leased)))


async def count_leased(session: AsyncSession, batch_number: int) -> int:
    """Never many, and an index has them."""
    leased = select(func.count()).where(
        RequestRow.batch_number == batch_number, RequestRow.state == RequestState.LEASED
    )
    return await session.scalar(leased) or 0


async def is_any_expired(session: AsyncSession, batch_number: int) -> bool:
    expired = exists().where(
        RequestRow.batch_number == batch_number, RequestRow.state == RequestState.EXPIRED
    )
    return bool(await session.scalar(select(expired)))


async def outcomes(
    session: AsyncSession, batch_number: int, *, after_line: int, limit: int, most_bytes: int
) -> list[Outcome]:
    """A page in input order: up to `limit` lines, with `most_bytes` of answers, or one longer."""
    with_answers = (RequestRow.batch_number == batch_number, RequestRow.line > after_line)
    sizes = await session.execute(
        select(RequestRow.line, func.coalesce(func.length(AnswerRow.line), 0))
        .outerjoin(AnswerRow, AnswerRow.request_id == RequestRow.id)
        .where(*with_answers)
        .order_by(RequestRow.line)
        .limit(limit)
    )
    rows = await session.execute(
        select(RequestRow.line, RequestRow.custom_id, RequestRow.state, AnswerRow.line)
        .outerjoin(AnswerRow, AnswerRow.request_id == RequestRow.id)
        .where(*with_answers, RequestRow.line <= _last_of_page(sizes.all(), most_bytes))
        .order_by(RequestRow.line)
    )
    return [
        Outcome(line, custom_id, RequestState(state), answer)
        for line, custom_id, state, answer in rows
    ]


def _last_of_page(sizes: Iterable[Row[int, int]], most_bytes: int) -> int:
    """The number of the last line; 0 if there is none."""
    last = 0
    for line, size in sizes:
        most_bytes -= size
        if last and most_bytes < 0:
            break
        last = line
    return last


async def page(
    session: AsyncSession,
    batch_number: int,
    *,
    states: Collection[RequestState],
    after_line: int,
    limit: int,
    most_bytes: int,
) -> Page[Line]:
    """In input order, of all states if none is named; with `most_bytes` of errors or one longer."""
    failed = and_(AnswerRow.request_id == RequestRow.id, RequestRow.state == RequestState.FAILED)
    wanted = [RequestRow.batch_number == batch_number, RequestRow.line > after_line]
    if states:
        wanted.append(_is_one_of(states))
    found = await session.execute(
        select(RequestRow.line, func.coalesce(func.length(AnswerRow.line), 0))
        .outerjoin(AnswerRow, failed)
        .where(*wanted)
        .order_by(RequestRow.line)
        .limit(limit + 1)
    )
    sizes = found.all()
    last_line = _last_of_page(sizes[:limit], most_bytes)
    rows = await session.execute(
        select(
            RequestRow.line,
            RequestRow.custom_id,
            RequestRow.state,
            RequestRow.attempt,
            RequestRow.failures,
            RequestRow.seconds,
            AnswerRow.line,
        )
        .outerjoin(AnswerRow, failed)
        .where(*wanted, RequestRow.line <= last_line)
        .order_by(RequestRow.line)
    )
    lines = [
        Line(line, custom_id, RequestState(state), attempts, failures, seconds, error)
        for line, custom_id, state, attempts, failures, seconds, error in rows
    ]
    return Page(lines, has_more=bool(sizes) and sizes[-1][0] > last_line)


def _is_one_of(states: Collection[RequestState]) -> ColumnElement[bool]:
    """SQLite sees from an equation, not from a list, that a partial index has all such rows."""
    if list(states) == [RequestState.FAILED]:
        return RequestRow.state == RequestState.FAILED
    return RequestRow.state.in_(states)


async def count_unanswered(session: AsyncSession, batch_number: int, *, up_to_line: int) -> int:
    """Of a final batch, as many lines of its error file."""
    counted = await session.scalar(
        select(func.count()).where(
            RequestRow.batch_number == batch_number,
            RequestRow.line <= up_to_line,
            RequestRow.state != RequestState.COMPLETED,
        )
    )
    return counted or 0


async def detail(
    session: AsyncSession, batch_number: int, line: int, *, most_bytes: int
) -> Detail | None:
    """`most_bytes`: of the answer."""
    request = await session.scalar(
        select(RequestRow).where(RequestRow.batch_number == batch_number, RequestRow.line == line)
    )
    if request is None:
        return None
    answer: bytes | None = await session.scalar(
        select(func.substr(AnswerRow.line, 1, most_bytes)).where(AnswerRow.request_id == request.id)
    )
    return Detail(
        told=_told(request),
        body_offset=request.body_offset,
        body_length=request.body_length,
        answer=answer,
    )


async def published_before(session: AsyncSession, batch_number: int, line: Line) -> int:
    """How many lines stand before its own in the output or error file. Looks at each of them."""
    is_completed = RequestRow.state == RequestState.COMPLETED
    before = await session.scalar(
        select(func.count()).where(
            RequestRow.batch_number == batch_number,
            RequestRow.line < line.line,
            is_completed if line.state == RequestState.COMPLETED else ~is_completed,
        )
    )
    return before or 0


def _told(row: RequestRow) -> Line:
    state = RequestState(row.state)
    return Line(row.line, row.custom_id, state, row.attempt, row.failures, row.seconds, None)


async def trim(session: AsyncSession, batch_number: int, *, limit: int) -> int:
    """Drop up to `limit` answers of a batch whose files are written; return how many."""
    some = (
        select(AnswerRow.request_id)
        .join(RequestRow, RequestRow.id == AnswerRow.request_id)
        .where(RequestRow.batch_number == batch_number)
        .limit(limit)
    )
    trimmed = await session.scalars(
        delete(AnswerRow).where(AnswerRow.request_id.in_(some)).returning(AnswerRow.request_id)
    )
    return len(trimmed.all())


async def _add_answers(session: AsyncSession, batch_number: int, places: Iterable[Place]) -> None:
    its_request = select(RequestRow.id, bindparam("answer", type_=LargeBinary)).where(
        RequestRow.batch_number == batch_number, RequestRow.line == bindparam("at_line")
    )
    await _execute_many(
        session,
        insert(AnswerRow).from_select(["request_id", "line"], its_request),
        [{"at_line": place.line, "answer": place.answer} for place in places],
    )


async def _end(session: AsyncSession, settlements: Sequence[Settlement]) -> None:
    ended = (
        update(RequestRow)
        .where(RequestRow.id == bindparam("request_id"))
        .values(state=bindparam("final_state"), leased_until=None, seconds=bindparam("took"))
    )
    await _execute_many(
        session,
        ended,
        [
            {"request_id": s.lease.id, "final_state": s.state, "took": s.seconds}
            for s in settlements
        ],
    )


async def _execute_many(
    session: AsyncSession, statement: Executable, rows: Sequence[dict[str, Any]]
) -> None:
    """As Core does it, straight to the driver: the ORM looks at each row."""
    connection = await session.connection()
    await connection.execute(statement, rows)


async def _change(session: AsyncSession, *conditions: Any, **values: Any) -> int:
    result = await session.execute(
        update(RequestRow)
        .where(*conditions)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return result.rowcount  # type: ignore[attr-defined, no-any-return]
