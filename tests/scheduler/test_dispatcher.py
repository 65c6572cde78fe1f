import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import update

import batch_api.upstreams
from batch_api.lifecycle import BatchStatus
from batch_api.scheduler.dispatcher import Pause
from batch_api.store.tables import BatchRow
from batch_api.upstreams import Upstreams
from tests.api.upstream import ScriptedUpstream
from tests.clock import TurnableClock
from tests.listening import full_listener
from tests.scheduler.site import Site, ids, line, question, questions, until
from tests.standin import (
    BROKEN_JSON,
    CLOSED,
    HALF,
    HANG,
    HTML,
    MODEL,
    RESET,
    Fault,
    Standin,
    answer_to,
)
from tests.store import rows

ODD_BODIES = [
    b'{ "model" : "plain",\t"messages" : [ ] , "seed" : 123456789012345678901234567890 }',
    b'{"model":"plain","messages":[],"temperature":0.1000000000000000055511151231257827}',
    '{"model":"plain","messages":["\u2028\u0085ü😀 \\ud83d\\ude00"],"x":1e999}'.encode(),
]


def with_settings(site: Site, **changes: object) -> Site:
    return replace(site, settings=site.settings.model_copy(update=changes))


async def test_each_line_is_answered_once_and_counted(site: Site) -> None:
    number = await site.submit(questions(30))

    batch = await site.run(number)
    assert batch.status == BatchStatus.COMPLETED
    assert await site.counts(number) == (30, 30, 0)
    assert site.standin.stats.received == 30
    output = await site.output(number)
    assert ids(output) == [f"row-{it}" for it in range(1, 31)]
    assert output[6]["response"]["status_code"] == 200
    answer = output[6]["response"]["body"]["choices"][0]["message"]["content"]
    assert answer == answer_to("hi 7")
    assert await site.errors(number) == []


async def test_a_body_reaches_the_upstream_byte_for_byte(site: Site) -> None:
    upstream = ScriptedUpstream()
    upstream.answer(b'{"choices": []}')
    upstreams = Upstreams([await upstream.start()], timeout_seconds=10)
    number = await site.submit(b"".join(line(f"{it}", body) for it, body in enumerate(ODD_BODIES)))

    await replace(site, upstreams=upstreams).run(number)
    await upstreams.close()
    await upstream.stop()
    assert sorted(received.body for received in upstream.received) == sorted(ODD_BODIES)
    assert {received.line for received in upstream.received} == {
        "POST /v1/chat/completions HTTP/1.1"
    }


async def test_usage_and_model_are_those_of_the_answers(site: Site) -> None:
    number = await site.submit(question("a", "two words") + question("b", "and three words"))

    batch = await site.run(number)
    assert (batch.model, batch.input_tokens, batch.output_tokens) == (MODEL, 5, 5)


async def test_a_400_is_not_tried_again(site: Site) -> None:
    number = await site.submit(question("bad", f"{Fault(status=400)}x") + question("good"))

    batch = await site.run(number)
    assert (batch.status, batch.completed, batch.failed) == ("completed", 1, 1)
    assert site.standin.stats.received == 2
    (bad,) = await site.errors(number)
    assert (bad["custom_id"], bad["error"]) == ("bad", None)
    assert bad["response"]["status_code"] == 400
    assert bad["response"]["body"]["error"]["message"] == "as told: 400"


@pytest.mark.parametrize("status", [500, 502, 408])
async def test_a_passing_error_is_tried_again_and_at_last_told(site: Site, status: int) -> None:
    number = await site.submit(question("bad", f"{Fault(status=status)}x"))

    batch = await site.run(number)
    assert (batch.status, batch.completed, batch.failed) == ("completed", 0, 1)
    assert site.standin.stats.received == site.settings.max_attempts
    assert await site.output(number) == []
    (bad,) = await site.errors(number)
    assert bad["response"]["status_code"] == status
    assert bad["response"]["body"]["error"]["message"] == f"as told: {status}"


@pytest.mark.parametrize(
    ("fault", "code", "seen"),
    [
        (HTML, "invalid_answer", "<h1>502 Bad Gateway</h1>"),
        (BROKEN_JSON, "invalid_answer", '"object": "chat.comp'),
        (Fault(body='["an array"]'), "invalid_answer", '["an array"]'),
        (Fault(body="42"), "invalid_answer", "42"),
        (Fault(body='{"detail": "ok"}'), "invalid_answer", '{"detail": "ok"}'),
        (Fault(body='{"choices": {"0": "x"}}'), "invalid_answer", '{"choices": {"0": "x"}}'),
        (Fault(body=""), "invalid_answer", "200"),
        (RESET, "worker_crashed", "broke off"),
        (HALF, "worker_crashed", "broke off"),
        (CLOSED, "worker_crashed", "broke off"),
        (Fault(headers={"x-long": "x" * 1_000_000}), "worker_crashed", "broke off"),
        (Fault(headers={"content-encoding": "gzip"}), "worker_crashed", "broke off"),
    ],
    ids=[
        "html",
        "broken-json",
        "array",
        "number",
        "no-choices",
        "choices-of-another-kind",
        "nothing",
        "reset",
        "half",
        "closed",
        "header-of-1-mb",
        "not-gzip",
    ],
)
async def test_no_whole_answer_is_tried_again_and_at_last_told(
    site: Site, fault: Fault, code: str, seen: str
) -> None:
    number = await site.submit(question("bad", f"{fault}x"))

    batch = await site.run(number)
    assert (batch.status, batch.completed, batch.failed) == ("completed", 0, 1)
    assert site.standin.stats.received == site.settings.max_attempts
    (bad,) = await site.errors(number)
    assert (bad["response"], bad["error"]["code"]) == (None, code)
    assert seen in bad["error"]["message"]


async def test_html_with_an_error_status_keeps_its_status(site: Site) -> None:
    fault = Fault(status=502, body=HTML.body)
    number = await site.submit(question("bad", f"{fault}x"))

    await site.run(number)
    (bad,) = await site.errors(number)
    assert bad["response"]["status_code"] == 502
    assert "502 Bad Gateway" in bad["response"]["body"]["error"]["message"]


async def test_an_upstream_that_never_answers_is_given_up(site: Site) -> None:
    settings = site.settings.model_copy(update={"max_attempts": 2})
    upstreams = Upstreams([site.url], timeout_seconds=0.2)
    number = await site.submit(question("bad", f"{HANG}x"))

    await replace(site, settings=settings, upstreams=upstreams).run(number)
    await upstreams.close()
    assert site.standin.stats.received == 2
    (bad,) = await site.errors(number)
    assert bad["error"]["code"] == "request_timeout"
    assert await site.counts(number) == (1, 0, 1)


@pytest.mark.parametrize("fault", [Fault(status=500), HTML, RESET, HALF], ids=str)
async def test_a_fault_that_passes_leaves_no_trace(site: Site, fault: Fault) -> None:
    twice = Fault(status=fault.status, body=fault.body, ending=fault.ending, times=2)
    number = await site.submit(question("a", f"{twice}x"))

    await site.run(number)
    assert await site.counts(number) == (1, 1, 0)
    (good,) = await site.output(number)
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "x"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", ["0.3", "0", "nan", "-1", "soon", None])
async def test_an_overloaded_upstream_is_waited_for_and_nothing_has_failed(
    site: Site, status: int, retry_after: str | None
) -> None:
    fault = Fault(status=status, retry_after=retry_after, times=1)
    number = await site.submit(question("a", f"{fault}x"))

    await with_settings(site, max_attempts=1).run(number)
    assert await site.counts(number) == (1, 1, 0)
    assert site.standin.stats.received == 2
    assert (await rows.request(site.database, 1)).failures == 0


async def test_an_upstream_that_cannot_be_reached_is_waited_for(
    site: Site, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=10)
    number = await site.submit(questions(5))
    assert await site.intake.validate_once()
    site = with_settings(replace(site, upstreams=upstreams), max_attempts=1)
    async with site.running():
        await until(lambda: "waiting for an upstream" in caplog.text)
        assert await site.status(number) == BatchStatus.IN_PROGRESS

    standin = Standin()
    assert await attempts(site, 5) == [0] * 5
    await site.janitor.recover()
    async with standin.listening(free_port):
        assert (await site.run(number)).completed == 5
        await upstreams.close()
    assert standin.stats.received == 5
    assert await attempts(site, 5) == [1] * 5


@pytest.fixture
def slow(standin: Standin) -> None:
    standin.fault = Fault(delay_ms=20)


@pytest.mark.usefixtures("slow")
async def test_no_more_than_the_limit_is_in_flight_and_no_less(site: Site) -> None:
    number = await site.submit(questions(60))

    await site.run(number)
    assert site.standin.stats.most_open == site.settings.max_in_flight
    assert await site.counts(number) == (60, 60, 0)


async def test_what_was_taken_back_is_broken_off_before_it_runs_again(site: Site) -> None:
    hangs_once = Fault(ending="hang", times=1)
    number = await site.submit(question("a", f"{hangs_once}x"))
    async with site.running():
        await until(lambda: site.standin.stats.open == 1)
        site.clock.steady += site.settings.lease_seconds
        assert await site.janitor.reclaim_once() == 1
        site.wakeup.ring()
        while not (await site.status(number)).is_final:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await until(lambda: site.standin.stats.open == 0)

    assert await site.counts(number) == (1, 1, 0)
    stats = site.standin.stats
    assert (stats.received, stats.answered, stats.most_open) == (2, 1, 1)
    assert (await rows.request(site.database, 1)).attempt == 2


@pytest.fixture
async def patient(site: Site) -> AsyncIterator[Site]:
    """Its requests hang for ever; a stop waits for none of them."""
    site.standin.fault = HANG
    upstreams = Upstreams([site.url], timeout_seconds=600)
    yield with_settings(replace(site, upstreams=upstreams), shutdown_grace_seconds=0.1)
    await upstreams.close()


async def test_a_cancel_ends_at_once_what_waits_for_a_lane(patient: Site) -> None:
    site = patient
    number = await site.submit(questions(40, "long" * 100_000))
    async with site.running() as scheduler:
        await until(lambda: site.standin.stats.open == 8)
        await leased(site, number, 32)
        await site.cancel(number)
        scheduler.ring()
        await leased(site, number, 8)

        assert await site.status(number) == BatchStatus.CANCELLING
        assert await attempts(site, 40) == [1] * 8 + [0] * 32
        other = await site.submit(questions(40), id="batch_2")
        await leased(site, other, 24)
    assert site.standin.stats.received == 8


async def test_a_cancel_ends_at_once_what_waits_for_an_upstream(
    patient: Site, free_port: int
) -> None:
    number = await patient.submit(questions(40))
    assert await patient.intake.validate_once()
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=600)
    site = replace(patient, upstreams=upstreams)
    async with site.running() as scheduler:
        await until(lambda: scheduler.waits_for == "no upstream takes requests")
        await site.cancel(number)
        scheduler.ring()
        while not (await site.status(number)).is_final:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await upstreams.close()

    assert await site.status(number) == BatchStatus.CANCELLED


async def test_a_cancel_ends_at_once_what_waits_for_a_place_at_the_upstream(patient: Site) -> None:
    upstreams = Upstreams([patient.url], timeout_seconds=600, most_in_flight=2)
    site = replace(patient, upstreams=upstreams)
    number = await site.submit(questions(40))
    async with site.running() as scheduler:
        await until(lambda: site.standin.stats.open == 2)
        await leased(site, number, 32)
        await site.cancel(number)
        scheduler.ring()
        await leased(site, number, 2)

        assert scheduler.waits_for is None
    await upstreams.close()


async def attempts(site: Site, lines: int) -> list[int]:
    """Of the lines of the first batch that was submitted, in their order."""
    return [(await rows.request(site.database, id)).attempt for id in range(1, lines + 1)]


async def leased(site: Site, number: int, count: int) -> None:
    """Waits until so many lines of the batch are."""
    while (await rows.states(site.database, number)).count("leased") != count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_cancel_past_its_grace_breaks_off_what_is_in_flight(patient: Site) -> None:
    site = patient
    number = await site.submit(questions(4))
    async with site.running() as scheduler:
        await until(lambda: site.standin.stats.open == 4)
        await site.cancel(number)
        scheduler.ring()
        site.clock.wall += site.settings.cancel_grace_seconds
        await until(lambda: site.standin.stats.open == 0)

    assert await site.status(number) == BatchStatus.CANCELLED
    assert site.standin.stats.received == 4


async def test_a_deadline_breaks_off_what_is_in_flight_of_its_batch_alone(patient: Site) -> None:
    site = patient
    late = await site.submit(questions(4), expires_at=int(site.clock.now()) + 60)
    async with site.running():
        await until(lambda: site.standin.stats.open == 4)
        other = await site.submit(questions(1), id="batch_2")
        await until(lambda: site.standin.stats.open == 5)
        site.clock.wall += 60
        await until(lambda: site.standin.stats.open == 1)
        while not (await site.status(late)).is_final:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        assert await site.status(late) == BatchStatus.EXPIRED
        assert await site.status(other) == BatchStatus.IN_PROGRESS
    assert site.standin.stats.received == 5


async def test_an_outage_is_told_for_as_long_as_it_lasts(site: Site, free_port: int) -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=10)
    here = with_settings(replace(site, upstreams=upstreams), shutdown_grace_seconds=0.1)
    await site.submit(questions(5))
    assert await site.intake.validate_once()
    standin = Standin()
    standin.fault = HANG
    async with here.running() as scheduler:
        await until(lambda: scheduler.waits_for is not None)
        told = []
        for _ in range(100):
            site.clock.steady += 0.1
            await asyncio.sleep(0.01)
            told.append(scheduler.waits_for)
        async with standin.listening(free_port):
            while standin.stats.open == 0:
                site.clock.steady += 0.1
                await asyncio.sleep(0.01)
            assert scheduler.waits_for is None
    await upstreams.close()

    assert set(told) == {"no upstream takes requests"}


async def test_an_upstream_that_takes_no_connection_is_at_work_on_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api.upstreams, "_CONNECT_SECONDS", 0.2)
    with full_listener() as port:
        upstreams = Upstreams([f"http://127.0.0.1:{port}"], timeout_seconds=10)
        here = with_settings(replace(site, upstreams=upstreams), shutdown_grace_seconds=0.1)
        await site.submit(questions(1))
        assert await site.intake.validate_once()
        told = []
        async with here.running() as scheduler:
            await until(lambda: scheduler.waits_for is not None)
            for _ in range(200):  # longer than it rests
                site.clock.steady += 0.1
                await asyncio.sleep(0.01)
                told.append(scheduler.waits_for)
        await upstreams.close()

    assert set(told) == {"no upstream takes requests"}


async def test_nothing_is_sent_under_a_lease_that_ran_out(site: Site, free_port: int) -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=10)
    here = replace(site, upstreams=upstreams)
    number = await site.submit(questions(5))
    assert await site.intake.validate_once()
    standin = Standin()
    async with here.running() as scheduler:
        await until(lambda: scheduler.waits_for is not None)
        ran_out_at = (await rows.request(site.database, 1)).leased_until
        site.clock.steady += site.settings.lease_seconds
        async with standin.listening(free_port):
            received = 0  # when it was looked for the last time
            while (await rows.request(site.database, 1)).leased_until == ran_out_at:
                assert received == 0
                received = standin.stats.received
                site.clock.steady += 1.0
                await asyncio.sleep(0.01)
            while not (await site.status(number)).is_final:
                site.clock.steady += 1.0  # a pause may be on
                await asyncio.sleep(0.01)
    await upstreams.close()

    assert standin.stats.received == 5


async def test_a_stop_ends_what_is_in_flight_and_leaves_the_rest(site: Site) -> None:
    site.standin.fault = Fault(delay_ms=500)
    number = await site.submit(questions(30))
    async with site.running():
        await until(lambda: site.standin.stats.open == 8)
    total, completed, _ = await site.counts(number)
    assert (total, completed) == (30, site.standin.stats.answered)
    assert 8 <= completed < 30

    site.standin.fault = Fault()
    await site.janitor.recover()
    await site.run(number)
    assert await site.counts(number) == (30, 30, 0)
    assert site.standin.stats.received == 30
    assert await attempts(site, 30) == [1] * 30


async def test_a_stop_waits_no_longer_than_its_grace_period(site: Site) -> None:
    number = await site.submit(question("a", f"{HANG}x"))
    async with asyncio.timeout(8), with_settings(site, shutdown_grace_seconds=0.1).running():
        await until(lambda: site.standin.stats.open == 1)

    assert await site.counts(number) == (1, 0, 0)
    await site.janitor.recover()
    assert await rows.states(site.database, number) == ["pending"]


async def test_a_cancel_lets_what_is_in_flight_end_and_sends_no_more(site: Site) -> None:
    site.standin.fault = Fault(delay_ms=200)
    number = await site.submit(questions(60))
    async with site.running() as scheduler:
        await until(lambda: site.standin.stats.open == 8)
        assert await site.cancel(number)
        scheduler.ring()
        while not (await site.status(number)).is_final:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    output, errors = await site.output(number), await site.errors(number)
    assert await site.status(number) == BatchStatus.CANCELLED
    assert site.standin.stats.received < 60
    assert await site.counts(number) == (60, len(output), 0)
    assert len(output) == site.standin.stats.answered
    assert sorted(ids(output + errors)) == sorted(f"row-{it}" for it in range(1, 61))
    assert {error["error"]["code"] for error in errors} == {"batch_cancelled"}


async def test_a_batch_whose_input_is_gone_does_not_hold_up_the_others(site: Site) -> None:
    gone = await site.submit(questions(50))
    assert await site.intake.validate_once()
    async with site.database.write.begin() as session:
        await session.execute(update(BatchRow).values(input_file_id="file-gone"))
    number = await site.submit(questions(50), id="batch_2")

    await site.run(number)
    assert await site.counts(number) == (50, 50, 0)
    await site.run(gone)
    assert await site.counts(gone) == (50, 0, 50)
    assert {line["error"]["code"] for line in await site.errors(gone)} == {"input_gone"}


def test_pauses_grow_to_a_bound_however_long_an_outage_is() -> None:
    clock = TurnableClock()
    pause = Pause(clock)
    lengths = []
    for _ in range(2_000):
        pause.begin(None)
        lengths.append(length(pause, clock))

    assert lengths[:4] == [0.25, 0.5, 1.0, 2.0]
    assert lengths[-1] == max(lengths) == 30.0
    pause.forget()
    pause.begin(None)
    assert length(pause, clock) == 0.25


def test_a_pause_is_as_long_as_the_upstream_wishes() -> None:
    clock = TurnableClock()
    pause = Pause(clock)
    pause.begin(7.0)
    pause.begin(9.0)

    assert length(pause, clock) == 7.0


def length(pause: Pause, clock: TurnableClock) -> float:
    begun = clock.steady
    while pause.is_on:
        clock.steady += 0.25
    return clock.steady - begun
