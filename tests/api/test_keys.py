"""Who is let in: keys of the database, made and revoked while the server runs."""

import asyncio
from typing import Any

import pytest
from openai import AuthenticationError
from sqlalchemy import func, select

from batch_api.api.keys import Keyring, hashed
from batch_api.store import keys
from batch_api.store.orders import Orders
from batch_api.store.tables import KeyRow
from tests.api import keys as making
from tests.api.conftest import START, Site, sdk


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


async def test_an_order_that_can_not_be_read_stops_nobody(site: Site) -> None:
    key = await making.make(site.keyring, site.settings, "default")
    (site.settings.data_dir / "orders" / "0-bad.json").write_bytes(b"{\xff")

    _, second = making.leave(site.settings, "default")
    await site.keyring.take_orders_once()

    assert [await status_for(site, one) for one in (key, second)] == [200, 200]


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
