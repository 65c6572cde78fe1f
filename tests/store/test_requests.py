from collections.abc import Sequence

import pytest
from sqlalchemy.exc import IntegrityError

from batch_api.lifecycle import RequestState
from batch_api.store import requests
from batch_api.store.database import Database
from batch_api.store.requests import Lease, Settlement
from tests.store.plans import planned
from tests.store.rows import (
    LEASE_SECONDS,
    add_batch,
    answer,
    lease,
    outcomes,
    place,
    request,
    settle,
    states,
)

OVER = LEASE_SECONDS


async def reclaim(database: Database, *, now: float) -> int:
    async with database.write.begin() as session:
        return await requests.reclaim(session, now=now)


async def release(
    database: Database, held: Lease, *, failures: int = 0, not_before: float = 0.0
) -> bool:
    async with database.write.begin() as session:
        return await requests.release(session, held, failures=failures, not_before=not_before)


async def put_back(database: Database, unsent: Sequence[Lease], *, not_before: float = 0.0) -> None:
    async with database.write.begin() as session:
        await requests.put_back(session, unsent, not_before=not_before)


async def recover(database: Database) -> int:
    async with database.write.begin() as session:
        return await requests.recover(session)


async def end_unrun(
    database: Database, number: int, state: RequestState, *, leased_too: bool
) -> int:
    async with database.write.begin() as session:
        return await requests.end_unrun(session, number, state, leased_too=leased_too)


async def trim(database: Database, number: int, *, limit: int) -> int:
    async with database.write.begin() as session:
        return await requests.trim(session, number, limit=limit)


async def test_requests_are_leased_in_the_order_of_dispatch(database: Database) -> None:
    number = await add_batch(database)
    async with database.write.begin() as session:
        await requests.add(session, number, [place(3), place(1), place(2)])

    assert [held.line for held in await lease(database, number)] == [3, 1, 2]


async def test_a_lease_says_where_the_body_lies(database: Database) -> None:
    number = await add_batch(database, lines=1)

    (held,) = await lease(database, number)
    assert (held.batch_number, held.line, held.custom_id) == (number, 1, "row-1")
    assert (held.body_offset, held.body_length) == (100, 50)
    assert (held.attempt, held.failures) == (1, 0)


async def test_no_request_is_leased_twice_nor_more_than_asked_for(database: Database) -> None:
    number = await add_batch(database, lines=5)

    pages = [await lease(database, number, limit=2) for _ in range(4)]
    assert [[held.line for held in page] for page in pages] == [[1, 2], [3, 4], [5], []]


async def test_a_request_of_another_batch_is_not_leased(database: Database) -> None:
    await add_batch(database, lines=2)
    second = await add_batch(database, "batch_2", lines=1)

    assert [held.batch_number for held in await lease(database, second)] == [second]


async def test_a_lease_that_runs_out_is_taken_back_and_given_anew(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (first,) = await lease(database, number, now=0.0)

    assert await reclaim(database, now=OVER - 0.1) == 0
    assert await reclaim(database, now=OVER) == 1
    (second,) = await lease(database, number, now=OVER)
    assert (second.id, second.attempt, second.failures) == (first.id, 2, 0)


async def test_a_late_answer_from_an_expired_lease_is_dropped(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (first,) = await lease(database, number, now=0.0)
    await reclaim(database, now=OVER)
    late = answer(first, b"late\n")

    assert await settle(database, late) == []
    (second,) = await lease(database, number, now=OVER)
    assert await settle(database, late) == []
    in_time = answer(second, b"in time\n")
    assert await settle(database, late, in_time) == [in_time]
    assert await settle(database, late, in_time) == []
    (outcome,) = await outcomes(database, number)
    assert (outcome.state, outcome.answer) == (RequestState.COMPLETED, b"in time\n")


async def test_an_answer_is_kept_byte_for_byte_and_failures_are_answers_too(
    database: Database,
) -> None:
    number = await add_batch(database, lines=2)
    first, second = await lease(database, number)
    line = '{"a": "ü\u2028 \\u0000"}\n'.encode()

    await settle(database, Settlement(second, RequestState.FAILED, b"{}\n"), answer(first, line))
    assert [(it.line, it.custom_id, it.state, it.answer) for it in await outcomes(database, 1)] == [
        (1, "row-1", RequestState.COMPLETED, line),
        (2, "row-2", RequestState.FAILED, b"{}\n"),
    ]


async def test_a_renewed_lease_lasts(database: Database) -> None:
    number = await add_batch(database, lines=2)
    first, second = await lease(database, number, now=0.0)
    async with database.write.begin() as session:
        await requests.renew(session, [second.id], until=2 * OVER)

    assert await reclaim(database, now=OVER) == 1
    assert (await request(database, first.id)).state == RequestState.PENDING
    assert (await request(database, second.id)).leased_until == 2 * OVER


async def test_a_renewal_leases_nothing(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (held,) = await lease(database, number)
    await settle(database, answer(held))
    async with database.write.begin() as session:
        await requests.renew(session, [held.id], until=2 * OVER)

    assert (await request(database, held.id)).leased_until is None


async def test_a_released_request_comes_back_when_its_delay_is_over(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (held,) = await lease(database, number)

    assert await release(database, held, failures=1, not_before=5.0)
    assert await lease(database, number, now=4.9) == []
    (again,) = await lease(database, number, now=5.0)
    assert (again.attempt, again.failures) == (2, 1)


async def test_what_was_never_sent_comes_back_without_an_attempt(database: Database) -> None:
    number = await add_batch(database, lines=2)
    held = await lease(database, number)

    await put_back(database, held, not_before=5.0)
    assert [(await request(database, it.id)).attempt for it in held] == [0, 0]
    assert await lease(database, number, now=4.9) == []
    assert await lease(database, number, now=5.0) == held


@pytest.mark.parametrize("state", [RequestState.CANCELLED, RequestState.EXPIRED])
async def test_what_was_never_sent_before_its_batch_was_cut_off_has_no_attempt(
    database: Database, state: RequestState
) -> None:
    number = await add_batch(database, lines=2)
    sent, unsent = await lease(database, number)
    async with database.write.begin() as session:
        assert await requests.end_unrun(session, number, state, leased_too=True) == 2

    await put_back(database, [unsent])
    await put_back(database, [unsent])

    rows = [await request(database, it.id) for it in (sent, unsent)]
    assert [(row.state, row.attempt) for row in rows] == [(state, 1), (state, 0)]


async def test_a_lost_lease_is_not_put_back(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (lost,) = await lease(database, number, now=0.0)
    await reclaim(database, now=OVER)
    (second,) = await lease(database, number, now=OVER)

    await put_back(database, [lost])
    assert await settle(database, answer(second)) == [answer(second)]
    await put_back(database, [second])
    assert (await request(database, second.id)).attempt == 2


async def test_a_late_answer_is_dropped_after_a_lease_that_was_put_back(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (late,) = await lease(database, number, now=0.0)
    await reclaim(database, now=OVER)
    await put_back(database, await lease(database, number, now=OVER))

    assert await settle(database, answer(late)) == []
    (third,) = await lease(database, number, now=OVER)
    assert await settle(database, answer(late)) == []
    assert await settle(database, answer(third)) == [answer(third)]


async def test_failed_lines_are_found_without_looking_at_all(database: Database) -> None:
    async with database.read() as session, planned(session) as plans:
        await requests.page(
            session, 1, states=[RequestState.FAILED], after_line=0, limit=50, most_bytes=1_000_000
        )

    assert len(plans) == 2
    for first, *_ in plans:
        assert first.startswith("SEARCH requests USING INDEX ix_requests_failed"), first


async def test_a_release_of_a_lost_lease_changes_nothing(database: Database) -> None:
    number = await add_batch(database, lines=1)
    (first,) = await lease(database, number, now=0.0)
    await reclaim(database, now=OVER)
    (second,) = await lease(database, number, now=OVER)

    assert not await release(database, first, failures=1)
    assert await release(database, second)
    assert not await release(database, second)


async def test_a_new_process_takes_back_every_lease_and_forgets_delays(
    database: Database,
) -> None:
    number = await add_batch(database, lines=3)
    done, delayed, _ = await lease(database, number, now=1e6)
    await settle(database, answer(done))
    await release(database, delayed, not_before=2e6)

    assert await recover(database) == 1
    assert [held.line for held in await lease(database, number, now=0.0)] == [2, 3]


@pytest.mark.parametrize("state", [RequestState.CANCELLED, RequestState.EXPIRED])
async def test_what_was_not_run_is_ended(database: Database, state: RequestState) -> None:
    number = await add_batch(database, lines=3)
    other = await add_batch(database, "batch_2", lines=1)
    done, held = await lease(database, number, limit=2)
    await settle(database, answer(done))

    assert await end_unrun(database, number, state, leased_too=False) == 1
    assert await states(database, number) == ["completed", "leased", state]
    assert await end_unrun(database, number, state, leased_too=True) == 1
    assert await states(database, number) == ["completed", state, state]
    assert await settle(database, answer(held)) == []
    assert await states(database, other) == ["pending"]


async def test_looks_at_a_batch_say_what_there_is(database: Database) -> None:
    number = await add_batch(database, lines=1)

    async def looks() -> tuple[bool, bool, bool]:
        async with database.read() as session:
            return (
                await requests.is_any_leased(session, number),
                await requests.is_any_overdue(session, now=OVER),
                await requests.is_any_expired(session, number),
            )

    assert await looks() == (False, False, False)
    await lease(database, number, now=0.0)
    assert await looks() == (True, True, False)
    await end_unrun(database, number, RequestState.EXPIRED, leased_too=True)
    assert await looks() == (False, False, True)


async def test_outcomes_come_in_pages_in_input_order(database: Database) -> None:
    number = await add_batch(database)
    async with database.write.begin() as session:
        await requests.add(session, number, [place(line) for line in (9, 2, 5)])
    async with database.read() as session:
        first = await requests.outcomes(session, number, after_line=0, limit=2, most_bytes=1_000)
        second = await requests.outcomes(session, number, after_line=5, limit=2, most_bytes=1_000)

    assert [outcome.line for outcome in first + second] == [2, 5, 9]


async def test_a_page_of_outcomes_has_answers_of_so_many_bytes_or_one_longer(
    database: Database,
) -> None:
    number = await add_batch(database, lines=5)
    sizes = (30, 30, 100, 30, 1)
    held = await lease(database, number)
    await settle(database, *(answer(it, bytes(size)) for it, size in zip(held, sizes, strict=True)))

    pages, last = [], 0
    async with database.read() as session:
        while page := await requests.outcomes(
            session, number, after_line=last, limit=3, most_bytes=60
        ):
            pages.append([outcome.line for outcome in page])
            last = page[-1].line
    assert pages == [[1, 2], [3], [4, 5]]


async def test_answers_are_trimmed_in_pieces_and_requests_stay(database: Database) -> None:
    number = await add_batch(database, lines=5)
    other = await add_batch(database, "batch_2", lines=1)
    held = await lease(database, number) + await lease(database, other)
    await settle(database, *map(answer, held))

    assert [await trim(database, number, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [it.answer for it in await outcomes(database, number)] == [None] * 5
    assert [it.answer for it in await outcomes(database, other)] == [b"{}\n"]


async def test_a_line_is_kept_once(database: Database) -> None:
    number = await add_batch(database, lines=1)

    with pytest.raises(IntegrityError, match="UNIQUE"):
        async with database.write.begin() as session:
            await requests.add(session, number, [place(1)])
    async with database.write.begin() as session:
        await requests.remove(session, number, limit=10)
        await requests.add(session, number, [place(1)])
    assert await states(database, number) == ["pending"]
