from collections.abc import Mapping
from itertools import chain, pairwise
from pathlib import Path

import pytest

from batch_api.store import progress
from batch_api.store.batches import Tally, Usage
from batch_api.store.database import Database
from batch_api.store.progress import Point, Rate, bucket_of, middle_of
from tests.lived_in import LivedIn
from tests.store import rows
from tests.store.plans import planned

NOON = 43_200


def tally(completed: int = 0, failed: int = 0, *, seconds: tuple[float, ...] = ()) -> Tally:
    usage = Usage(input_tokens=10 * completed, output_tokens=completed)
    return Tally(completed, failed, usage, seconds=seconds)


async def record(database: Database, tallies: Mapping[int, Tally], *, now: float) -> None:
    async with database.write.begin() as session:
        await progress.record(session, tallies, now=now)


@pytest.fixture
async def number(database: Database) -> int:
    return await rows.add_batch(database)


async def test_what_is_done_within_one_interval_is_added_up(
    database: Database, number: int
) -> None:
    await record(database, {number: tally(2, 1)}, now=NOON + 1)
    await record(database, {number: tally(3)}, now=NOON + 9.9)
    await record(database, {number: tally(0, 1)}, now=NOON + 10)

    async with database.read() as session:
        history = await progress.of_batch(session, number, since=NOON, step=10)
    assert history.points == [Point(NOON, 5, 1, 50, 5), Point(NOON + 10, 0, 1, 0, 0)]


async def test_longer_steps_and_several_batches_are_added_up(
    database: Database, number: int
) -> None:
    other = await rows.add_batch(database, "batch_2")
    await record(database, {number: tally(1), other: tally(2)}, now=NOON + 10)
    await record(database, {number: tally(4)}, now=NOON + 290)
    await record(database, {number: tally(8)}, now=NOON + 300)

    async with database.read() as session:
        history = await progress.of_all(session, since=NOON + 5, step=300)
        alone = await progress.of_batch(session, other, since=NOON, step=300)
    assert history.points == [Point(NOON, 7, 0, 70, 7), Point(NOON + 300, 8, 0, 80, 8)]
    assert alone.points == [Point(NOON, 2, 0, 20, 2)]


async def test_what_was_done_earlier_is_left_out(database: Database, number: int) -> None:
    await record(database, {number: tally(1, seconds=(1.0,))}, now=NOON - 1)

    async with database.read() as session:
        history = await progress.of_all(session, since=NOON, step=60)
    assert (history.points, history.delays) == ([], [])


async def test_quantiles_are_told_to_within_a_tenth(database: Database, number: int) -> None:
    seconds = tuple(0.01 * n for n in range(1, 101))
    for n, each in enumerate(seconds):
        await record(database, {number: tally(1, seconds=(each,))}, now=NOON + n / 2)

    async with database.read() as session:
        history = await progress.of_batch(session, number, since=NOON, step=10)
    (delay,) = history.delays
    assert delay.at == NOON
    assert (delay.p50, delay.p95, delay.p99) == pytest.approx((0.5, 0.95, 0.99), rel=0.1)


def test_buckets_meet_and_their_middles_are_within_a_tenth() -> None:
    assert [bucket_of(1.0), bucket_of(2.0), bucket_of(0.0)] == [0, 4, bucket_of(0.001)]
    for seconds in (0.001, 0.0123, 0.5, 1.0, 1.18, 59.0, 600.0):
        assert middle_of(bucket_of(seconds)) == pytest.approx(seconds, rel=0.1)
    assert all(a <= b for a, b in pairwise(bucket_of(n / 100) for n in range(1, 1000)))


async def test_rates_are_those_of_the_time_since_it_began(database: Database, number: int) -> None:
    idle = await rows.add_batch(database, "batch_2")
    await record(database, {number: tally(100)}, now=NOON - 60)
    await record(database, {number: tally(30, 10)}, now=NOON + 20)

    async with database.read() as session:
        found = await progress.rates(session, [number, idle], since=NOON, now=NOON + 40)
    assert found == {number: Rate(lines=2.0, input_tokens=15.0, output_tokens=1.5)}


async def test_a_tenant_sees_its_own_history_only(database: Database, number: int) -> None:
    others = await rows.add_batch(database, "batch_2", tenant="other")
    await record(
        database,
        {number: tally(1, seconds=(1.0,)), others: tally(5, seconds=(9.0,))},
        now=NOON,
    )

    async with database.of("other").read() as session:
        history = await progress.of_all(session, since=NOON, step=60)
        rates = await progress.rates(session, [number, others], since=NOON, now=NOON + 10)
        foreign = await progress.of_batch(session, number, since=NOON, step=60)
    assert [point.completed for point in history.points] == [5]
    assert [delay.p50 for delay in history.delays] == [pytest.approx(9.0, rel=0.1)]
    assert list(rates) == [others]
    assert (foreign.points, foreign.delays) == ([], [])


async def test_what_is_old_is_forgotten_in_bites(database: Database, number: int) -> None:
    for n in range(5):
        await record(database, {number: tally(1, seconds=(1.0,))}, now=NOON + 60 * n)

    async def forget() -> int:
        async with database.write.begin() as session:
            return await progress.forget(session, before=NOON + 180, limit=4)

    assert [await forget() for _ in range(3)] == [4, 2, 0]
    async with database.read() as session:
        history = await progress.of_all(session, since=0, step=60)
    assert [point.at for point in history.points] == [NOON + 180, NOON + 240]
    assert [delay.at for delay in history.delays] == [NOON + 180, NOON + 240]


def test_after_a_kill_the_history_adds_up_to_what_the_batches_count(
    killed: LivedIn, tmp_path: Path
) -> None:
    lived_in = killed.copy(tmp_path / "data")
    sums = lived_in.execute(
        "SELECT batches.id, sum(progress.completed), sum(progress.failed), "
        "sum(progress.input_tokens), sum(progress.output_tokens) "
        "FROM progress JOIN batches ON batch_number = number GROUP BY number ORDER BY number"
    )
    counts = lived_in.execute(
        "SELECT id, completed, failed, input_tokens, output_tokens FROM batches "
        "WHERE completed + failed > 0 ORDER BY number"
    )
    timed = lived_in.execute(
        "SELECT batches.id, sum(lines) FROM latencies JOIN batches ON batch_number = number "
        "GROUP BY number ORDER BY number"
    )

    assert sums == counts
    assert [id for id, *_ in counts] == [
        lived_in.completed.id,
        lived_in.cancelled.id,
        lived_in.running.id,
    ]
    assert timed == [(id, completed + failed) for id, completed, failed, *_ in counts]


async def test_a_tenants_history_is_found_without_looking_at_that_of_others(
    database: Database,
) -> None:
    async with database.of("default").read() as session, planned(session) as plans:
        await progress.of_all(session, since=0, step=60)

    steps = chain.from_iterable(plans)
    assert [step for step in steps if step.startswith(("SEARCH", "SCAN"))] == [
        "SEARCH progress USING PRIMARY KEY (tenant=? AND at>?)",
        "SEARCH latencies USING PRIMARY KEY (tenant=? AND at>?)",
    ]
