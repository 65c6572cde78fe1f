"""Webhooks over real sockets: what receivers get, and what becomes of those who misbehave."""

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from sqlalchemy import event, select, text

from batch_api.lifecycle import DeliveryState
from batch_api.metrics import exposition
from batch_api.receivers import Receivers
from batch_api.schemas.ids import event_id
from batch_api.store import batches, deliveries, totals
from batch_api.store.database import DATABASE_NAME
from batch_api.store.deliveries import Attempt
from batch_api.store.tables import DeliveryRow
from batch_api.store.tenancy import DEFAULT_TENANT
from tests.receiver import HANG, SECRET, Receiver, Reply
from tests.scheduler.site import Site, question, until
from tests.scraping import Scrape
from tests.store import rows

BROKEN = Reply(500)
UNHURRIED = Reply(after_seconds=0.1)
ANOTHER_SECRET = "whsec_YW5vdGhlciBzZWNyZXQgb2Ygbm9ib2R5IGVsc2UgYXQgYWxs"
NOBODYS_SECRET = "whsec_YSBzZWNyZXQgdGhhdCBub2JvZHkgZXZlciBzaWducyB3aXRo"
TOKEN = "xyzzy"
DAY = 86_400.0
_TIMEOUT_SECONDS = 20.0
_SHORT_SECONDS = 0.2


@pytest.fixture(scope="module")
def sdk() -> Iterator[OpenAI]:
    with OpenAI(api_key="none") as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@dataclass(frozen=True)
class Stage:
    """A site whose settings name a receiver."""

    site: Site
    receiver: Receiver

    async def end(self, id: str, *urls: str, own: str | None = None) -> None:
        """A batch, at once; it is to be told to the receiver unless others are named."""
        number = await rows.add_batch(self.site.database, id, webhook_url=own)
        async with self.site.database.write.begin() as session:
            assert await batches.fail(
                session,
                number,
                errors=["no"],
                now=self.site.clock.now(),
                webhook_urls=urls or self.site.settings.webhook_urls,
            )

    async def row(self) -> DeliveryRow:
        (row,) = await self.rows()
        return row

    async def rows(self) -> list[DeliveryRow]:
        async with self.site.database.read() as session:
            return list(await session.scalars(select(DeliveryRow).order_by(DeliveryRow.number)))

    async def states(self) -> list[str]:
        return [row.state for row in await self.rows()]


@asynccontextmanager
async def staged(
    site: Site,
    receiver: Receiver,
    *,
    secret: str = SECRET,
    timeout_seconds: float = _TIMEOUT_SECONDS,
    **settings: Any,
) -> AsyncIterator[Stage]:
    told = {"webhook_urls": (receiver.url(),), "webhook_hosts": (receiver.host,), **settings}
    site.clock.wall = time.time()  # signatures must not be old
    async with Receivers(secret, timeout_seconds=timeout_seconds) as receivers:
        settled = site.settings.model_copy(update=told)
        yield Stage(replace(site, settings=settled, receivers=receivers), receiver)


@pytest.fixture
async def stage(site: Site, receiver: Receiver) -> AsyncIterator[Stage]:
    async with staged(site, receiver) as stage:
        yield stage


async def test_the_sdk_unwraps_what_a_receiver_gets_of_a_batch_that_has_run(
    stage: Stage, sdk: OpenAI
) -> None:
    number = await stage.site.submit(question("row-1"), id="batch_1")
    async with stage.site.running():
        await until(lambda: bool(stage.receiver.heard))

    (heard,) = stage.receiver.heard
    told = heard.unwrap(sdk)
    batch = await stage.site.batch(number)
    assert told.type == "batch.completed"
    assert (told.object, told.data.id, told.created_at) == (
        "event",
        "batch_1",
        batch.completed_at,
    )
    assert told.id == heard.id == event_id("batch_1")
    assert told.id.startswith("evt_")
    assert set(json.loads(heard.body)) == {"id", "object", "type", "created_at", "data"}
    assert heard.headers["content-type"] == "application/json"
    assert await stage.states() == ["delivered"]


@pytest.mark.parametrize("how", ["failed", "cancelled", "cancelled unread", "expired"])
async def test_the_scheduler_tells_of_each_other_end(stage: Stage, sdk: OpenAI, how: str) -> None:
    content = b"no line of ours" if how in ("failed", "cancelled unread") else question("row-1")
    site = stage.site
    number = await site.submit(content, expires_at=int(site.clock.now()) + 1)
    if "cancelled" in how:
        await site.cancel(number)
    await site.intake.validate_once()
    site.clock.wall += 2
    await site.janitor.expire_once()
    await site.finalizer.finalize_once()

    assert await site.notifier.deliver_once() == 1
    (heard,) = stage.receiver.heard
    assert heard.unwrap(sdk).type == f"batch.{how.split()[0]}"


async def test_what_another_secret_signed_or_somebody_changed_is_not_unwrapped(
    stage: Stage, sdk: OpenAI
) -> None:
    await stage.end("batch_1")
    await stage.site.notifier.deliver_once()

    (heard,) = stage.receiver.heard
    for forged, secret in [
        (heard, ANOTHER_SECRET),
        (replace(heard, body=heard.body.replace(b"batch_1", b"batch_2")), SECRET),
        (replace(heard, headers={**heard.headers, "webhook-id": "evt_other"}), SECRET),
    ]:
        with pytest.raises(InvalidWebhookSignatureError):
            forged.unwrap(sdk, secret)


async def test_while_secrets_change_whoever_has_the_old_or_the_new_one_unwraps(
    site: Site, receiver: Receiver, sdk: OpenAI
) -> None:
    async with staged(site, receiver, secret=f"{ANOTHER_SECRET} {SECRET}") as stage:
        await stage.end("batch_1")
        await stage.site.notifier.deliver_once()

    (heard,) = receiver.heard
    told = [heard.unwrap(sdk, secret) for secret in (ANOTHER_SECRET, SECRET)]
    assert [it.type for it in told] == ["batch.failed"] * 2
    signatures = heard.signature.split(" ")
    assert [it.partition(",")[0] for it in signatures] == ["v1", "v1"]
    with pytest.raises(InvalidWebhookSignatureError):
        heard.unwrap(sdk, NOBODYS_SECRET)


async def test_what_was_not_taken_is_sent_again_under_its_id_with_a_fresh_signature(
    stage: Stage, sdk: OpenAI
) -> None:
    stage.receiver.replies.append(BROKEN)
    await stage.end("batch_1")
    assert await stage.site.notifier.deliver_once() == 1
    assert await stage.site.notifier.deliver_once() == 0
    row = await stage.row()
    assert (row.state, row.attempts, row.failure) == ("pending", 1, "answers 500")

    stage.site.clock.wall = row.next_at
    assert await stage.site.notifier.deliver_once() == 1
    first, second = stage.receiver.heard
    assert (first.id, first.body) == (second.id, second.body)
    assert second.sent_at == int(row.next_at) > first.sent_at
    assert first.signature != second.signature
    second.verify(sdk)
    assert ((await stage.row()).state, (await stage.row()).attempts) == ("delivered", 2)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_2xx_is_a_yes(stage: Stage, status: int) -> None:
    stage.receiver.usual = Reply(status)
    await stage.end("batch_1")
    await stage.site.notifier.deliver_once()

    assert await stage.states() == ["delivered"]


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (Reply(400), "answers 400"),
        (Reply(404), "answers 404"),
        (Reply(503), "answers 503"),
        (Reply(503, ending="huge"), "answers 503"),
        (HANG, "does not answer in time"),
        (Reply(ending="closed"), "breaks off, or does not speak HTTP"),
        (Reply(ending="nonsense"), "breaks off, or does not speak HTTP"),
        (Reply(ending="endless head"), "breaks off, or does not speak HTTP"),
    ],
)
async def test_a_receiver_that_misbehaves_is_tried_again(
    site: Site, receiver: Receiver, reply: Reply, failure: str
) -> None:
    receiver.replies.append(reply)
    timeout_seconds = _SHORT_SECONDS if reply is HANG else _TIMEOUT_SECONDS
    async with staged(site, receiver, timeout_seconds=timeout_seconds) as stage:
        await stage.end("batch_1")
        await stage.site.notifier.deliver_once()
        row = await stage.row()
        assert (row.state, row.attempts, row.failure) == ("pending", 1, failure)

    async with staged(site, receiver) as stage:
        site.clock.wall = row.next_at
        await stage.site.notifier.deliver_once()
        assert await stage.states() == ["delivered"]


async def test_nobody_there_is_tried_again(site: Site, free_port: int) -> None:
    with Receiver() as receiver:
        nowhere = f"http://127.0.0.1:{free_port}/"
        async with staged(site, receiver, webhook_urls=(nowhere,)) as stage:
            await stage.end("batch_1")
            await stage.site.notifier.deliver_once()

            assert (await stage.row()).failure == "can't be reached"


async def test_a_redirect_is_not_followed(stage: Stage) -> None:
    for status in (301, 302, 303, 307, 308):
        with Receiver() as elsewhere:
            stage.receiver.replies.append(Reply(status, {"location": elsewhere.url()}))
            await stage.end(f"batch_{status}")
            await stage.site.notifier.deliver_once()
            assert elsewhere.heard == []

    failures = [row.failure for row in await stage.rows()]
    assert failures == [f"answers {status}" for status in (301, 302, 303, 307, 308)]


async def test_a_proxy_of_the_environment_sees_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.host}")
        monkeypatch.delenv("no_proxy", raising=False)
        await stage.end("batch_1")
        await stage.site.notifier.deliver_once()

        assert proxy.heard == []
    assert len(stage.receiver.heard) == 1


async def test_a_huge_answer_is_not_read(stage: Stage) -> None:
    stage.receiver.usual = Reply(ending="huge")
    await stage.end("batch_1")
    await stage.site.notifier.deliver_once()

    assert await stage.states() == ["delivered"]
    await until(lambda: stage.receiver.open == 0)
    assert stage.receiver.sent_bytes < 8 * 1024 * 1024  # what fits into the kernel's buffers


async def test_who_says_gone_hears_no_more(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.receiver.usual = Reply(410)
    await stage.end("batch_1")
    await stage.site.notifier.deliver_once()

    assert await stage.states() == ["given_up"]
    stage.site.clock.turn(30 * DAY)
    assert await stage.site.notifier.deliver_once() == 0
    assert [r.levelno for r in caplog.records if r.message == "webhook given up"] == [logging.ERROR]


async def test_attempts_are_counted_by_what_became_of_them_and_what_waits(stage: Stage) -> None:
    stage.receiver.usual = Reply(503)
    await stage.end("batch_1")
    await stage.site.notifier.deliver_once()
    waiting = await _webhooks_waiting(stage)
    stage.site.clock.turn(DAY)
    stage.receiver.usual = Reply(200)
    await stage.site.notifier.deliver_once()

    assert waiting == 1
    assert await _webhooks_waiting(stage) == 0
    counted = Scrape.of(bytes(exposition(stage.site.registry).body))
    outcomes = {"delivered": 1, "failed": 1, "given_up": 0}
    for outcome, count in outcomes.items():
        assert counted.value("batch_api_webhooks_total", outcome=outcome) == count


async def _webhooks_waiting(stage: Stage) -> int:
    async with stage.site.database.read() as session:
        return (await totals.work(session, now=stage.site.clock.now())).webhooks


@pytest.mark.parametrize(
    ("wish", "least", "most"),
    [
        ("1800", 1800, 1801),
        ("1", 3.9, 6.1),
        ("1e9", 6 * 3600, 6 * 3600 + 1),
        ("-5", 3.9, 6.1),
        ("nan", 3.9, 6.1),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3.9, 6.1),
    ],
)
async def test_a_wish_to_wait_is_granted_within_reason(
    stage: Stage, wish: str, least: float, most: float
) -> None:
    stage.receiver.usual = Reply(503, {"retry-after": wish})
    await stage.end("batch_1")
    await stage.site.notifier.deliver_once()

    assert least <= (await stage.row()).next_at - stage.site.clock.now() <= most


async def test_it_is_tried_ever_more_seldom_for_three_days_and_then_given_up(
    stage: Stage, caplog: pytest.LogCaptureFixture, sdk: OpenAI
) -> None:
    stage.receiver.usual = BROKEN
    await stage.end("batch_1")
    notifier, clock, pauses = stage.site.notifier, stage.site.clock, list[float]()
    while await notifier.deliver_once():
        row = await stage.row()
        if row.state == DeliveryState.PENDING:
            pauses.append(row.next_at - clock.now())
            clock.wall = row.next_at

    assert (await stage.row()).state == "given_up"
    assert len(stage.receiver.heard) == (await stage.row()).attempts == 19
    assert {heard.id for heard in stage.receiver.heard} == {event_id("batch_1")}
    stage.receiver.heard[-1].verify(sdk)
    assert pauses[0] <= 6
    assert pauses[:7] == sorted(pauses[:7])
    assert 2.4 * DAY < sum(pauses) < 3.7 * DAY
    levels = [r.levelno for r in caplog.records if r.message.startswith("webhook ")]
    assert levels == [logging.WARNING] * 18 + [logging.ERROR]


async def test_who_hangs_keeps_nobody_else_waiting_and_gets_four_at_once(stage: Stage) -> None:
    with Receiver() as hanging:
        hanging.usual = HANG
        for number in range(20):
            await stage.end(f"batch_{number}", hanging.url())
        beside = f"{hanging.url('/beside')}"
        await stage.end("batch_20", stage.receiver.url(), beside)
        hosts = (stage.receiver.host, hanging.host)
        site = replace(
            stage.site, settings=stage.site.settings.model_copy(update={"webhook_hosts": hosts})
        )
        async with site.running() as scheduler:
            await until(lambda: len(stage.receiver.heard) == 1)
            await until(lambda: len(hanging.heard) == 5)
            scheduler.ring()
            await stage.end("batch_21", stage.receiver.url())
            scheduler.ring()
            await until(lambda: len(stage.receiver.heard) == 2)
            paths = sorted(heard.path for heard in hanging.heard)
            assert paths == ["/beside", "/hook", "/hook", "/hook", "/hook"]
            hanging.let_go()
            await until(lambda: len(hanging.heard) == 21)

        assert hanging.most_open == 5


async def test_many_are_delivered_to_one_receiver_each_once_in_few_transactions(
    stage: Stage,
) -> None:
    for number in range(100):
        await stage.end(f"batch_{number}")
    before = stage.site.database.commits(DEFAULT_TENANT)
    assert await stage.site.notifier.deliver_once() == 100

    assert len(stage.receiver.heard) == len({heard.id for heard in stage.receiver.heard}) == 100
    assert stage.receiver.most_open <= 4
    assert set(await stage.states()) == {"delivered"}
    assert stage.site.database.commits(DEFAULT_TENANT) - before < 100


async def test_many_are_delivered_over_few_connections_to_a_receiver_that_keeps_them(
    site: Site,
) -> None:
    with Receiver(keeps_connections=True) as receiver:
        async with staged(site, receiver) as stage:
            for number in range(40):
                await stage.end(f"batch_{number}")
            assert await stage.site.notifier.deliver_once() == 40

            assert set(await stage.states()) == {"delivered"}
            assert receiver.connections <= 4


async def test_each_url_of_a_busy_host_has_its_turn(stage: Stage) -> None:
    busy = [stage.receiver.url(f"/busy-{number}") for number in range(5)]
    for number in range(20):
        await stage.end(f"batch_{number}", *busy)
    await stage.end("batch_20", stage.receiver.url("/quiet"))
    assert await stage.site.notifier.deliver_once() == 101

    paths = [heard.path for heard in stage.receiver.heard]
    assert stage.receiver.most_open <= 16
    assert paths.index("/quiet") < 50


async def test_one_batch_s_own_receiver_hears_of_that_batch_alone(site: Site, sdk: OpenAI) -> None:
    with Receiver() as all_of_them, Receiver() as own, Receiver() as foreign:
        async with staged(site, all_of_them, webhook_hosts=(own.host, foreign.host)) as stage:
            await stage.end("batch_1", own=own.url())
            await stage.end("batch_2", own=foreign.url())
            await stage.end("batch_3")
            while await stage.site.notifier.deliver_once():
                pass

        heard = [
            sorted(heard.batch_id(sdk) for heard in receiver.heard)
            for receiver in (all_of_them, own, foreign)
        ]
    assert heard == [["batch_1", "batch_2", "batch_3"], ["batch_1"], ["batch_2"]]


async def test_what_the_settings_no_longer_name_is_not_called(stage: Stage) -> None:
    with Receiver() as former:
        await stage.end("batch_1", own=former.url())
        while await stage.site.notifier.deliver_once():
            pass

        assert former.heard == []
    failures = [row.failure for row in await stage.rows()]
    assert failures == [None, "is no longer named by the settings"]


async def test_without_a_secret_all_waits_for_one(stage: Stage) -> None:
    await stage.end("batch_1")
    silent = replace(stage.site, receivers=None)
    async with silent.running():
        assert await silent.notifier.deliver_once() == 0

    assert await stage.states() == ["pending"]
    assert await stage.site.notifier.deliver_once() == 1


async def test_the_event_of_a_batch_that_is_deleted_goes_out_all_the_same(stage: Stage) -> None:
    await stage.end("batch_1")
    site = stage.site
    async with site.database.write.begin() as session:
        assert await batches.remove(session, 1, now=site.clock.now())
    while await site.housekeeper.drop_removed_once():
        pass

    assert await site.notifier.deliver_once() == 1
    assert len(stage.receiver.heard) == 1


async def test_of_a_receiver_only_its_host_is_logged(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "batch_api")
    url = receiver.url(f"/{TOKEN}?token={TOKEN}")
    receiver.replies.extend(
        [Reply(500, {"x-secret": TOKEN}), Reply(ending="closed"), Reply(302, {"location": TOKEN})]
    )
    async with staged(site, receiver, webhook_urls=(url,)) as stage:
        await stage.end("batch_1")
        for _ in range(4):
            await stage.site.notifier.deliver_once()
            site.clock.turn(DAY)
        assert await stage.states() == ["delivered"]

    told = [vars(record) for record in caplog.records]
    assert [it["receiver"] for it in told if "receiver" in it] == [f"http://{receiver.host}"] * 4
    assert TOKEN not in str(told)


async def test_while_nothing_can_be_recorded_little_is_sent_and_nothing_twice(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "batch_api")
    site, stage.receiver.usual = stage.site, UNHURRIED
    for number in range(60):
        await stage.end(f"batch_{number}")
    async with site.database.write() as session:
        await session.execute(text("PRAGMA busy_timeout = 10"))
    path, stop = site.settings.data_dir / DATABASE_NAME, asyncio.Event()
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        running = asyncio.create_task(site.notifier.run(stop))
        await until(lambda: caplog.text.count("the database busy") >= 2)
        assert len(stage.receiver.heard) < 40
        somebody.execute("ROLLBACK")
        await until(lambda: caplog.text.count("webhook delivered") == 60)
    stop.set()
    await running

    assert len(stage.receiver.heard) == 60
    assert set(await stage.states()) == {"delivered"}


async def test_who_stood_in_line_before_nothing_could_be_recorded_is_not_told(stage: Stage) -> None:
    site, stage.receiver.usual = stage.site, UNHURRIED
    for number in range(300):
        await stage.end(f"batch_{number}", stage.receiver.url(f"/{number}"))
    async with site.database.write() as session:
        await session.execute(text("PRAGMA busy_timeout = 10"))
    notifier, path = site.notifier, site.settings.data_dir / DATABASE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        await notifier.deliver_once()
        assert len(stage.receiver.heard) < 200
        somebody.execute("ROLLBACK")
    while "pending" in await stage.states():
        await notifier.deliver_once()

    assert len(stage.receiver.heard) == 300


async def test_an_attempt_at_what_is_over_meanwhile_is_not_told(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.receiver.usual = HANG
    await stage.end("batch_1")
    delivering = asyncio.create_task(stage.site.notifier.deliver_once())
    await until(lambda: stage.receiver.open == 1)
    async with stage.site.database.write.begin() as session:
        assert await deliveries.record(session, [Attempt(1, DeliveryState.GIVEN_UP)], now=1.0)
    stage.receiver.let_go()
    await delivering

    assert await stage.states() == ["given_up"]
    assert "webhook" not in caplog.text


async def test_a_backlog_is_looked_at_a_few_times_a_second_however_fast_it_is_told(
    stage: Stage,
) -> None:
    for number in range(60):
        await stage.end(f"batch_{number}")
    statements = list[str]()
    engine = stage.site.database.read.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", lambda *it: statements.append(it[2]))
    began = time.monotonic()
    async with stage.site.running():
        await until(lambda: len(stage.receiver.heard) == 60)

    looks = sum("row_number()" in it for it in statements)
    assert 1 <= looks <= (time.monotonic() - began) * 5 + 2


@pytest.mark.parametrize(("grace_seconds", "attempts"), [(20, 1), (0, 0)])
async def test_a_stop_waits_for_what_is_under_way_within_the_grace_period(
    site: Site, receiver: Receiver, grace_seconds: float, attempts: int
) -> None:
    receiver.replies.append(HANG)
    async with staged(site, receiver, shutdown_grace_seconds=grace_seconds) as stage:
        await stage.end("batch_1")
        stop = asyncio.Event()
        run = asyncio.create_task(stage.site.notifier.run(stop))
        await until(lambda: receiver.open == 1)
        stop.set()
        if grace_seconds:
            receiver.let_go()
        await run

        row = await stage.row()
    assert (row.state, row.attempts) == ("pending", attempts)
