"""Who is let in: keys of the database, made and revoked while the server runs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError
from pydantic import SecretStr
from sqlalchemy import func, select

from batch_api.api.keys import Keyring, hashed
from batch_api.store import keys
from batch_api.store.orders import NewKey, Orders
from batch_api.store.tables import KeyRow
from tests.api import keys as making
from tests.api.conftest import START, Site, sdk, until


async def status_for(site: Site, key: str | None) -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with site.http.get("/v1/files", headers=headers) as answer:
        return answer.status


async def test_without_any_key_nobody_needs_one(site: Site) -> None:
    assert await status_for(site, None) == 200


async def test_from_the_first_key_on_one_is_needed(site: Site) -> None:
    key = await making.make(site.keyring, site.settings, "default")

    assert await status_for(site, None) == 401
    assert await status_for(site, key) == 200


async def test_what_there_was_before_the_first_key_is_the_default_tenants(site: Site) -> None:
    id = await site.upload()
    own = await making.make(site.keyring, site.settings, "default")
    foreign = await making.make(site.keyring, site.settings, "team-b")

    async with sdk(site.url, own) as client:
        assert [file.id async for file in client.files.list()] == [id]
    async with sdk(site.url, foreign) as client:
        assert [file.id async for file in client.files.list()] == []


async def test_a_revoked_key_is_refused_as_soon_as_its_revocation_is_taken(site: Site) -> None:
    id, key = making.leave(site.settings, "default")
    await site.keyring.take_orders_once()
    assert await status_for(site, key) == 200

    await making.revoke(site.keyring, site.settings, id)

    async with sdk(site.url, key) as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.files.list()
    assert refused.value.code == "invalid_api_key"


async def test_who_revokes_the_last_key_lets_nobody_in(site: Site) -> None:
    id, key = making.leave(site.settings, "default")
    await making.revoke(site.keyring, site.settings, id)

    assert [await status_for(site, one) for one in (None, key)] == [401, 401]
    again = await Keyring.open(site.database, site.settings, site.clock)
    assert again.is_needed


async def test_who_takes_the_only_key_from_the_settings_lets_nobody_in(site: Site) -> None:
    key = "sk-of-the-settings"
    with_key = site.settings.model_copy(update={"api_key": SecretStr(key)})
    for _ in range(2):  # starts
        keyed = await Keyring.open(site.database, with_key, site.clock)
        assert keyed.find(key.encode()) is not None

    without = await Keyring.open(site.database, site.settings, site.clock)

    assert without.is_needed
    assert without.find(key.encode()) is None
    async with site.database.read() as session:
        (row,) = await keys.every(session)
    assert row.sha256 != hashed(key.encode()), "it may be short enough to be guessed from its hash"


async def test_a_key_that_has_expired_is_refused(site: Site) -> None:
    key = await making.make(site.keyring, site.settings, "default", expires_at=START + 60)
    assert await status_for(site, key) == 200

    site.clock.wall = START + 60

    assert await status_for(site, key) == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic c2s6c2s=",
        "Bearer ' OR '1'='1",
        "Bearer x'; DROP TABLE api_keys; --",
        "Bearer sk-\xff\xfe",
        "Bearer " + "k" * 7_000,
    ],
)
async def test_what_is_no_key_is_refused(site: Site, header: str) -> None:
    await making.make(site.keyring, site.settings, "default")

    async with site.http.get("/v1/files", headers={"authorization": header}) as answer:
        body = await answer.json()

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert body["error"]["code"] == "invalid_api_key"
    async with site.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(KeyRow)) == 1


async def test_a_key_that_begins_like_another_is_not_that_one(site: Site) -> None:
    key = await making.make(site.keyring, site.settings, "default")

    for wrong in (key[:-1], f"{key}x", key.swapcase(), "sk-" + "A" * 43):
        assert await status_for(site, wrong) == 401


async def test_of_a_secret_only_its_hash_is_kept(site: Site) -> None:
    key = await making.make(site.keyring, site.settings, "default")

    kept = b"".join(p.read_bytes() for p in site.settings.data_dir.rglob("*") if p.is_file())

    assert hashed(key.encode()) in kept
    assert key.encode() not in kept
    assert key.removeprefix("sk-").encode() not in kept


async def test_the_last_use_is_recorded_once_a_minute_and_not_by_requests(site: Site) -> None:
    key = await making.make(site.keyring, site.settings, "default")
    await status_for(site, key)
    await site.keyring.record_use_once()
    assert await last_use(site) is None

    site.clock.turn(60)
    await site.keyring.record_use_once()

    assert await last_use(site) == START + 60
    site.clock.turn(600)
    await site.keyring.record_use_once()
    assert await last_use(site) == START + 60


async def test_requests_are_served_while_nothing_can_be_written(site: Site) -> None:
    """The use is recorded later, and no request waits for that."""
    key = await making.make(site.keyring, site.settings, "default")
    await status_for(site, key)
    site.clock.turn(60)

    async with site.database.write.begin():
        recording = asyncio.create_task(site.keyring.record_use_once())
        assert await status_for(site, key) == 200
    await recording

    assert await last_use(site) == START + 60


async def test_an_order_that_a_crash_left_is_carried_out_once_more_without_harm(
    site: Site,
) -> None:
    id, key = making.leave(site.settings, "default")
    orders = Orders(site.settings.data_dir)
    (path,) = orders.waiting()
    order = path.read_bytes()
    await site.keyring.take_orders_once()
    await making.revoke(site.keyring, site.settings, id)
    path.write_bytes(order)

    await site.keyring.take_orders_once()

    assert orders.waiting() == []
    assert await status_for(site, key) == 401


def the_first_order(site: Site) -> Path:
    return site.settings.data_dir / "orders" / "0-bad.json"


@pytest.mark.parametrize(
    "content",
    [
        b"{\xff",
        b'{"type": "Revocation", "id": "\xff", "revoked_at": 1}',
        b'{"type": "Revocation", "id": "k", "revoked_at": 1, "x": '
        + b"[" * 9999
        + b"]" * 9999
        + b"}",
        b'{"type": "Revocation", "id": "k", "revoked_at": "today"}',
        b'{"type": "NewKey", "id": "k", "sha256": "aaaa", "name": "k", "tenant": "t",'
        b' "created_at": 9223372036854775808, "expires_at": null}',
    ],
    ids=["no JSON", "no UTF-8", "deep", "no order", "no row"],
)
async def test_an_order_that_is_none_is_set_aside_and_stops_nobody(
    site: Site, content: bytes
) -> None:
    key = await making.make(site.keyring, site.settings, "default")
    bad = the_first_order(site)
    bad.write_bytes(content)

    _, second = making.leave(site.settings, "default")
    await site.keyring.take_orders_once()

    assert [await status_for(site, one) for one in (key, second)] == [200, 200]
    assert [path.name for path in bad.parent.iterdir()] == ["0-bad.json.refused"]
    assert bad.with_name("0-bad.json.refused").read_bytes() == content


async def test_an_order_that_the_database_does_not_take_is_set_aside(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    sha256 = hashed((await making.make(site.keyring, site.settings, "default")).encode())
    orders = Orders(site.settings.data_dir)
    for id in ("key_1", "key_2"):
        orders.leave(NewKey(id, sha256, "the same secret", "team-b", START, None))

    _, second = making.leave(site.settings, "default")
    await site.keyring.take_orders_once()

    assert await status_for(site, second) == 200
    assert orders.waiting() == []
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def test_a_folder_in_the_place_of_an_order_is_set_aside(site: Site) -> None:
    the_first_order(site).mkdir()

    key = await making.make(site.keyring, site.settings, "default")

    assert await status_for(site, key) == 200
    assert not the_first_order(site).exists()


async def test_an_order_that_can_not_be_removed_is_passed_over_from_then_on(site: Site) -> None:
    orders = Orders(site.settings.data_dir)
    the_first_order(site).mkdir()  # is not removed like a file, whoever may remove what
    assert orders.waiting() == [the_first_order(site)]

    orders.remove(orders.waiting())

    assert orders.waiting() == []


async def test_orders_are_taken_and_use_is_recorded_while_the_server_runs(site: Site) -> None:
    stop = asyncio.Event()
    _, key = making.leave(site.settings, "default")

    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        group.create_task(site.keyring.run(stop))
        while await status_for(site, key) != 200 or Orders(site.settings.data_dir).waiting():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await status_for(site, key)
        stop.set()

    assert await last_use(site) == START


async def test_the_document_names_the_scheme_once_a_key_is_needed(site: Site) -> None:
    async def document() -> dict[str, Any]:
        async with site.http.get("/openapi.json") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    assert "security" not in await document()
    await making.make(site.keyring, site.settings, "default")
    assert (await document())["security"] == [{"key": []}]


async def last_use(site: Site) -> int | None:
    async with site.database.read() as session:
        (row,) = await keys.every(session)
        return row.last_used_at


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What was logged, with its fields."""
    return [{"level": record.levelname, **vars(record)} for record in caplog.records]


async def test_a_key_that_is_made_or_revoked_is_logged_and_not_told(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "batch_api")
    id, key = making.leave(site.settings, "team-a")
    await site.keyring.take_orders_once()
    await making.revoke(site.keyring, site.settings, id)

    made, revoked = told(caplog)
    assert (made["msg"], made["key"], made["tenant"]) == ("a key was made", id, "team-a")
    assert (revoked["msg"], revoked["key"]) == ("a key was revoked", id)
    assert key not in str(made) + str(revoked)


async def test_however_many_wrong_keys_come_a_line_in_ten_seconds_tells_of_them(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await making.make(site.keyring, site.settings, "default")
    stop = asyncio.Event()

    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        group.create_task(site.keyring.run(stop))
        await status_for(site, "sk-a-wrong-key")
        await until(lambda: len(caplog.records) == 1)
        for _ in range(3):
            await status_for(site, "sk-a-wrong-key")
        site.clock.turn(9)
        making.leave(site.settings, "default")
        await until(lambda: not Orders(site.settings.data_dir).waiting())  # a round later
        assert len(caplog.records) == 1
        site.clock.turn(1)
        await until(lambda: len(caplog.records) == 2)
        await status_for(site, None)
        stop.set()

    lines = told(caplog)
    assert [line["requests"] for line in lines] == [1, 3, 1], "the last one at the stop"
    assert {(line["level"], line["last_from"]) for line in lines} == {("WARNING", "127.0.0.1")}
    assert "sk-a-wrong-key" not in str(lines)
