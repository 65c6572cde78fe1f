import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from batch_api.scheduler.fairness import Fairness
from batch_api.store.batches import Running
from batch_api.store.requests import Lease
from tests.scheduler.site import Site, questions, until
from tests.scheduler.test_dispatcher import with_settings
from tests.standin import Fault
from tests.store import rows

_BODY_BYTES = 400


def leases(batch: Running, count: int, *, body_bytes: int = _BODY_BYTES) -> list[Lease]:
    return [Lease(id, batch.number, id, "", 1, 0, 0, body_bytes) for id in range(count)]


def shared(
    fairness: Fairness,
    batches: Sequence[Running],
    limit: int,
    *,
    have: Mapping[int, int] = {},
    body_bytes: Mapping[int, int] = {},
) -> Counter[int]:
    """How many requests each batch may lease; `have`: of those that have not plenty."""
    left = {batch.number: have.get(batch.number, limit) for batch in batches}
    given: Counter[int] = Counter()
    turns = fairness.round(batches, limit)
    while turn := turns.next():
        batch, most = turn
        count = min(most, left[batch.number])
        size = body_bytes.get(batch.number, _BODY_BYTES)
        turns.took(batch, leases(batch, count, body_bytes=size), offered=most)
        left[batch.number] -= count
        given[batch.number] += count
    return given


def test_one_batch_alone_gets_all() -> None:
    fairness = Fairness()
    assert shared(fairness, [rows.running(1)], 100) == {1: 100}
    assert shared(fairness, [rows.running(1)], 100, have={1: 30}) == {1: 30}


def test_tenants_share_alike_however_many_batches_they_have() -> None:
    many = [rows.running(number, tenant="many") for number in range(50)]
    one = rows.running(99, tenant="one")
    fairness, given = Fairness(), Counter[int]()
    for _ in range(10):
        given += shared(fairness, [*many, one], 128)
    assert 630 <= given[99] <= 650
    assert given.total() == 1280


def test_batches_of_a_tenant_share_alike() -> None:
    fairness, given = Fairness(), Counter[int]()
    for _ in range(10):
        given += shared(fairness, [rows.running(number) for number in (1, 2, 3)], 90)
    assert max(given.values()) - min(given.values()) <= 30


def test_shares_are_of_expected_tokens_not_of_requests() -> None:
    short, long = rows.running(1), replace(rows.running(2), mean_output_tokens=900.0)
    fairness, given = Fairness(), Counter[int]()
    for _ in range(200):
        given += shared(fairness, [short, long], 100)
    assert 9 <= given[1] / given[2] <= 11


def test_long_prompts_count_for_what_they_are() -> None:
    fairness, given = Fairness(), Counter[int]()
    for _ in range(200):
        sizes = {1: 400, 2: 4000}
        given += shared(fairness, [rows.running(1), rows.running(2)], 110, body_bytes=sizes)
    assert 9 < given[1] / given[2] < 11


def test_what_one_leaves_goes_to_the_others() -> None:
    fairness = Fairness()
    batches = [rows.running(1, tenant="a"), rows.running(2, tenant="b")]
    assert shared(fairness, batches, 100, have={1: 5}) == {1: 5, 2: 95}


def test_who_comes_late_is_owed_nothing_and_owes_nothing() -> None:
    fairness = Fairness()
    old, new = rows.running(1, tenant="old"), rows.running(2, tenant="new")
    shared(fairness, [old], 1000)
    given = shared(fairness, [old, new], 100)
    assert given[1] == given[2] == 50


def test_the_nearest_deadline_goes_first_among_equals() -> None:
    later, sooner = rows.running(1, expires_at=200), rows.running(2, expires_at=100)
    assert shared(Fairness(), [later, sooner], 5) == {2: 5}


def test_a_batch_without_requests_to_run_has_no_turn() -> None:
    done = replace(rows.running(1), is_waiting=False)
    assert shared(Fairness(), [done, rows.running(2)], 10) == {2: 10}


async def test_a_small_batch_is_not_stuck_behind_huge_ones(site: Site) -> None:
    site.standin.fault = Fault(delay_ms=20)
    site = with_settings(site, max_in_flight=8)
    huge = [
        await site.submit(questions(500), id=f"batch_{n}", input_id=f"file-{n}") for n in range(5)
    ]
    async with site.running() as scheduler:
        await until(lambda: site.standin.stats.answered > 100)
        small = await site.submit(questions(40), id="batch_small", input_id="file-small")
        scheduler.ring()
        while (await site.counts(small))[1] < 40:  # noqa: ASYNC110 a database rings no bell
            await asyncio.sleep(0.01)
        answered = sum([(await site.counts(number))[1] for number in huge])
    assert answered < 1000
