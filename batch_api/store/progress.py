"""Statements on `progress` and `latencies`: what batches did when, for charts.

It is written in the transaction that records the answers, so it adds up to the batches' counts.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import floor, log2
from operator import attrgetter

from sqlalchemy import ColumnElement, TextClause, delete, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store.batches import Tally
from batch_api.store.tables import LatencyRow, ProgressRow

INTERVAL_SECONDS = 10
LATENCY_INTERVAL_SECONDS = 60
"""There are several rows of one interval: as many as bars of its histogram."""
KEPT_DAYS = 14

_BUCKETS_A_DOUBLING = 4
"""So a bucket's middle is off by 9 % at most."""
_SHORTEST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Rate:
    """What a batch has done each second of late."""

    lines: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Point:
    """What was done in one step, which begins at `at`."""

    at: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Delay:
    """How long the answers of one step took: half of them no longer than `p50` seconds, …"""

    at: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class History:
    """In order; steps in which nothing was done are left out."""

    points: Sequence[Point]
    delays: Sequence[Delay]


@dataclass(frozen=True, slots=True)
class _Bar:
    at: int
    bucket: int
    lines: int


def _adding_to(table: str, *, keys: Sequence[str], counts: Sequence[str]) -> TextClause:
    """To a batch's row of that interval, or to none; the tenant is the batch's."""
    names = [*keys, *counts]
    return text(
        f"INSERT INTO {table} (batch_number, tenant, {', '.join(names)}) "  # noqa: S608 all ours
        f"SELECT number, tenant, {', '.join(f':{name}' for name in names)} "
        f"FROM batches WHERE number = :number "
        f"ON CONFLICT (tenant, batch_number, {', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in counts)
    )


_ADD_PROGRESS = _adding_to(
    "progress",
    keys=["at"],
    counts=["completed", "failed", "input_tokens", "output_tokens"],
)
_ADD_LATENCIES = _adding_to("latencies", keys=["at", "bucket"], counts=["lines"])


async def record(session: AsyncSession, tallies: Mapping[int, Tally], *, now: float) -> None:
    """By batch number; `now` is wall time."""
    done = [
        {
            "number": number,
            "at": _beginning(now, INTERVAL_SECONDS),
            "completed": tally.completed,
            "failed": tally.failed,
            "input_tokens": tally.usage.input_tokens,
            "output_tokens": tally.usage.output_tokens,
        }
        for number, tally in tallies.items()
    ]
    at = _beginning(now, LATENCY_INTERVAL_SECONDS)
    bars = [
        {"number": number, "at": at, "bucket": bucket, "lines": lines}
        for number, tally in tallies.items()
        for bucket, lines in Counter(map(bucket_of, tally.seconds)).items()
    ]
    connection = await session.connection()
    for statement, rows in ((_ADD_PROGRESS, done), (_ADD_LATENCIES, bars)):
        if rows:
            await connection.execute(statement, rows)


async def rates(
    session: AsyncSession, batch_numbers: Collection[int], *, since: float, now: float
) -> Mapping[int, Rate]:
    """Of the batches that did something since then, by number."""
    begin = _beginning(since, INTERVAL_SECONDS)
    rows = await session.execute(
        select(
            ProgressRow.batch_number,
            func.min(ProgressRow.at),
            func.sum(ProgressRow.completed + ProgressRow.failed),
            func.sum(ProgressRow.input_tokens),
            func.sum(ProgressRow.output_tokens),
        )
        .where(ProgressRow.batch_number.in_(batch_numbers), ProgressRow.at >= begin)
        .group_by(ProgressRow.batch_number)
    )
    found = {}
    for number, first, *sums in rows:
        seconds = max(now - first, 1.0)
        found[number] = Rate(*(count / seconds for count in sums))
    return found


async def of_batch(session: AsyncSession, number: int, *, since: float, step: int) -> History:
    """`step`: seconds, a multiple of the interval; the delays' steps are a minute at least."""
    return await _history(session, since, step, batch_number=number)


async def of_all(session: AsyncSession, *, since: float, step: int) -> History:
    """Of all batches that the session may see; `step` as above."""
    return await _history(session, since, step, batch_number=None)


async def forget(session: AsyncSession, *, before: float, limit: int) -> int:
    """Up to `limit` rows that are older; return how many."""
    begin = int(before)
    return await _delete(session, ProgressRow.at < begin, LatencyRow.at < begin, limit)


async def remove(session: AsyncSession, batch_number: int, *, limit: int) -> int:
    """Up to `limit` rows of a batch; return how many."""
    progress = ProgressRow.batch_number == batch_number
    return await _delete(session, progress, LatencyRow.batch_number == batch_number, limit)


def bucket_of(seconds: float) -> int:
    return floor(_BUCKETS_A_DOUBLING * log2(max(seconds, _SHORTEST_SECONDS)))


def middle_of(bucket: int) -> float:
    """Seconds."""
    return float(2 ** ((bucket + 0.5) / _BUCKETS_A_DOUBLING))


def _beginning(at: float, interval: int) -> int:
    return int(at) // interval * interval


async def _history(
    session: AsyncSession, since: float, step: int, *, batch_number: int | None
) -> History:
    slow_step = max(step, LATENCY_INTERVAL_SECONDS)
    points = [ProgressRow.at >= _beginning(since, step)]
    delays = [LatencyRow.at >= _beginning(since, slow_step)]
    if batch_number is not None:
        points.append(ProgressRow.batch_number == batch_number)
        delays.append(LatencyRow.batch_number == batch_number)
    return History(
        await _points(session, step, *points), await _delays(session, slow_step, *delays)
    )


async def _points(
    session: AsyncSession, step: int, *wanted: ColumnElement[bool]
) -> Sequence[Point]:
    at = (ProgressRow.at - ProgressRow.at % step).label("step_at")
    counts = (
        ProgressRow.completed,
        ProgressRow.failed,
        ProgressRow.input_tokens,
        ProgressRow.output_tokens,
    )
    rows = await session.execute(
        select(at, *map(func.sum, counts)).where(*wanted).group_by(at).order_by(at)
    )
    return [Point(at, *map(int, sums)) for at, *sums in rows]


async def _delays(
    session: AsyncSession, step: int, *wanted: ColumnElement[bool]
) -> Sequence[Delay]:
    at = (LatencyRow.at - LatencyRow.at % step).label("step_at")
    rows = await session.execute(
        select(at, LatencyRow.bucket, func.sum(LatencyRow.lines))
        .where(*wanted)
        .group_by(at, LatencyRow.bucket)
        .order_by(at, LatencyRow.bucket)
    )
    bars = [_Bar(*row) for row in rows]
    return [_delay(at, list(group)) for at, group in groupby(bars, key=attrgetter("at"))]


def _delay(at: int, bars: Sequence[_Bar]) -> Delay:
    """`bars`: from the quickest to the slowest."""
    return Delay(at, *(_quantile(bars, share) for share in (0.5, 0.95, 0.99)))


def _quantile(bars: Iterable[_Bar], share: float) -> float:
    bars = list(bars)
    most = share * sum(bar.lines for bar in bars)
    seen = 0
    for bar in bars:
        seen += bar.lines
        if seen >= most:
            break
    return middle_of(bar.bucket)


async def _delete(
    session: AsyncSession,
    progress: ColumnElement[bool],
    latencies: ColumnElement[bool],
    limit: int,
) -> int:
    deleted = 0
    for table, wanted in ((ProgressRow, progress), (LatencyRow, latencies)):
        key = tuple(table.__table__.primary_key)
        some = select(*key).where(wanted).limit(limit - deleted)
        result = await session.execute(
            delete(table).where(tuple_(*key).in_(some)).execution_options(synchronize_session=False)
        )
        deleted += result.rowcount  # type: ignore[attr-defined]
    return deleted
