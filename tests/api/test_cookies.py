"""For whom the dashboard's cookie is good, and for how long: pages, the API and open events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import Morsel, SimpleCookie
from urllib.parse import urlencode

import aiohttp
import pytest

from batch_api.api.sessions import (
    COOKIE,
    ENDED_FILE,
    LONGEST_SECONDS,
    SESSION_SECONDS,
    Sessions,
)
from batch_api.settings import Settings
from batch_api.store import files
from tests.api import keys
from tests.api.conftest import START, Site
from tests.store import rows

NEIGHBOUR = "http://localhost:3000"
DAY = 24 * 3600


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"allowed_origins": [NEIGHBOUR]})


async def token_of(site: Site, key: str, **headers: str) -> str:
    """As the form signs in."""
    headers["content-type"] = "application/x-www-form-urlencoded"
    form = urlencode({"key": key})
    async with site.http.post(
        "/sign-in", data=form, headers=headers, allow_redirects=False
    ) as answer:
        return SimpleCookie(answer.headers["set-cookie"])[COOKIE].value


async def opens(site: Site, token: str, **headers: str) -> bool:
    """Whether the cookie is good for a page and for the API alike."""
    given = {"cookie": f"{COOKIE}={token}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    statuses = []
    for path in ("/", "/v1/batches"):
        async with site.http.get(path, headers=given, allow_redirects=False) as answer:
            statuses.append(answer.status)
    assert statuses in ([200, 200], [303, 401])
    return statuses == [200, 200]


async def renewed(site: Site, token: str, path: str = "/", **headers: str) -> Morsel[str] | None:
    """The cookie that comes with an answer, if one does."""
    given = {"cookie": f"{COOKIE}={token}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with site.http.get(path, headers=given, allow_redirects=False) as answer:
        return SimpleCookie(answer.headers.get("set-cookie", "")).get(COOKIE)


async def sign_out(site: Site, token: str, **headers: str) -> None:
    given = {"cookie": f"{COOKIE}={token}"} | headers
    async with site.http.post("/sign-out", headers=given, allow_redirects=False) as answer:
        assert answer.status == 303


async def test_only_pages_of_this_server_act_through_the_cookie(site: Site) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    token = await token_of(site, key)

    assert await opens(site, token)
    assert await opens(site, token, origin=site.url)
    assert await opens(site, token, sec_fetch_site="same-origin", origin=site.url)
    assert await opens(site, token, sec_fetch_site="none")
    assert not await opens(site, token, origin=NEIGHBOUR)
    assert not await opens(site, token, sec_fetch_site="same-site")
    assert not await opens(site, token, sec_fetch_site="cross-site")
    bearer = {"origin": NEIGHBOUR, "authorization": f"Bearer {key}"}
    async with site.http.get("/v1/batches", headers=bearer) as answer:
        assert answer.status == 200


async def test_who_signs_out_ends_every_copy_of_the_cookie_and_no_other_session(
    site: Site,
) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    first, second = [await token_of(site, key) for _ in range(2)]
    await sign_out(site, first, origin=NEIGHBOUR)
    assert await opens(site, first)

    await sign_out(site, first)

    assert [await opens(site, it) for it in (first, second)] == [False, True]
    again = await Sessions.open(site.settings.data_dir, site.keyring, site.clock)
    assert [again.find(it) is not None for it in (first, second)] == [False, True]


async def test_ended_sessions_are_remembered_for_as_long_as_they_would_have_been_good(
    site: Site,
) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    file = site.settings.data_dir / ENDED_FILE
    for made_up in ("", "a.b.c.d", f"a.b.{START + 9}.d"):
        await sign_out(site, made_up)
    assert not file.exists()

    await sign_out(site, await token_of(site, key))
    site.clock.turn(LONGEST_SECONDS)
    await sign_out(site, await token_of(site, key))

    assert file.read_bytes().count(b":") == 1
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_session_is_renewed_by_a_page_that_is_seen_in_its_second_half(site: Site) -> None:
    token = await token_of(site, await keys.make(site.keyring, site.settings, "a"))
    site.clock.turn(SESSION_SECONDS / 2)
    assert await renewed(site, token) is None
    site.clock.turn(1)
    assert await renewed(site, token, "/v1/batches") is None
    assert await renewed(site, token, origin=NEIGHBOUR) is None

    cookie = await renewed(site, token, hx_request="true")

    assert cookie is not None
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert cookie["max-age"] == str(SESSION_SECONDS)
    assert not cookie["secure"]
    site.clock.turn(SESSION_SECONDS - 1)
    assert [await opens(site, it) for it in (token, cookie.value)] == [False, True]
    site.clock.turn(1)
    assert not await opens(site, cookie.value)


async def test_a_session_that_is_used_each_day_ends_thirty_days_after_the_sign_in(
    site: Site,
) -> None:
    token, days = await token_of(site, await keys.make(site.keyring, site.settings, "a")), 0
    while await opens(site, token):
        cookie = await renewed(site, token)
        token = cookie.value if cookie else token
        site.clock.turn(DAY)
        days += 1

    assert days == 30


async def test_what_began_over_https_is_renewed_for_https_alone(site: Site) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    token = await token_of(site, key, origin="https://batch.example.com")
    site.clock.turn(SESSION_SECONDS - 1)

    cookie = await renewed(site, token)

    assert cookie is not None
    assert cookie["secure"] is True


@pytest.mark.parametrize("who", ["first", "last"])
async def test_signing_out_ends_a_session_before_and_after_it_was_renewed(
    site: Site, who: str
) -> None:
    first = await token_of(site, await keys.make(site.keyring, site.settings, "a"))
    site.clock.turn(SESSION_SECONDS - 1)
    cookie = await renewed(site, first)
    assert cookie is not None

    await sign_out(site, first if who == "first" else cookie.value)

    assert not await opens(site, first)
    site.clock.turn(SESSION_SECONDS - 1)
    assert not await opens(site, cookie.value)
    assert await renewed(site, cookie.value) is None
    again = await Sessions.open(site.settings.data_dir, site.keyring, site.clock)
    assert again.find(cookie.value) is None


@asynccontextmanager
async def listening(site: Site, token: str) -> AsyncIterator[aiohttp.StreamReader]:
    """After the first event, which every page gets."""
    headers = {"cookie": f"{COOKIE}={token}"}
    async with site.http.get("/events", headers=headers) as answer:
        assert await event(answer.content) == b"event: changed"
        yield answer.content


async def event(events: aiohttp.StreamReader) -> bytes:
    """The next one; empty at the end."""
    return (await events.readuntil(b"\n\n")).splitlines()[0] if not events.at_eof() else b""


@pytest.mark.parametrize("ending", ["revoked", "signed out", "over"])
async def test_events_end_with_the_session(site: Site, ending: str) -> None:
    id, key = keys.leave(site.settings, "a")
    await site.keyring.take_orders_once()
    token = await token_of(site, key)

    async with asyncio.timeout(30), listening(site, token) as events:
        match ending:
            case "revoked":
                await keys.revoke(site.keyring, site.settings, id)
            case "signed out":
                await sign_out(site, token)
            case "over":
                site.clock.turn(SESSION_SECONDS)

        assert b"tick" not in await events.read()


async def test_a_page_is_told_of_what_its_tenant_or_the_scheduler_writes_and_of_nothing_else(
    site: Site,
) -> None:
    mine, theirs = [
        await token_of(site, await keys.make(site.keyring, site.settings, tenant))
        for tenant in ("mine", "theirs")
    ]
    async with (
        asyncio.timeout(60),
        listening(site, mine) as events,
        listening(site, theirs) as others,
    ):
        await rows.add_file(site.database, "file-1", tenant="mine")
        assert await event(events) == b"event: changed"
        assert await event(others) == b"event: tick"

        async with site.database.write.begin() as session:
            await files.remove(session, "file-1")
        told = [await event(events), await event(events), await event(others)]
        assert b"event: changed" in told[:2]
        assert told[2] == b"event: changed"


async def test_events_that_need_a_session_are_refused_and_lead_to_no_page(site: Site) -> None:
    await keys.make(site.keyring, site.settings, "a")

    async with site.http.get("/events", allow_redirects=False) as answer:
        assert answer.status == 401
