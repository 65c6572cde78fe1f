"""Signing in on the dashboard, and what its pages are sent with."""

import stat
from dataclasses import dataclass
from http.cookies import Morsel, SimpleCookie
from urllib.parse import urlencode, urljoin

import pytest

from batch_api.api.sessions import COOKIE, SECRET_FILE, SESSION_SECONDS, Sessions
from batch_api.store.backup import back_up
from tests.api import keys
from tests.api.conftest import START, Site

PAGES = ["/", "/new", "/batches/batch_unknown", "/?status=nonsense", "/sign-in"]


@dataclass(frozen=True)
class Answer:
    status: int
    location: str
    cookie: Morsel[str] | None


async def sign_in(site: Site, key: str, *, next: str = "/", origin: str | None = None) -> Answer:
    """As the form does."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    async with site.http.post(
        "/sign-in",
        data=urlencode({"key": key, "next": next}),
        headers=headers | ({"origin": origin} if origin else {}),
        allow_redirects=False,
    ) as answer:
        cookies = SimpleCookie(answer.headers.get("set-cookie", ""))
        location = answer.headers.get("location", "")
        return Answer(answer.status, location, cookies.get(COOKIE))


async def opens(site: Site, token: str) -> bool:
    """Whether the cookie is good for a page and for the API alike."""
    headers = {"cookie": f"{COOKIE}={token}"}
    statuses = []
    for path in ("/", "/v1/batches"):
        async with site.http.get(path, headers=headers, allow_redirects=False) as answer:
            statuses.append(answer.status)
    assert statuses in ([200, 200], [303, 401])
    return statuses == [200, 200]


async def token_of(site: Site, key: str) -> str:
    answer = await sign_in(site, key)
    assert answer.cookie is not None
    return answer.cookie.value


@pytest.mark.parametrize("path", PAGES)
async def test_pages_run_nothing_but_our_own_files_and_are_kept_nowhere(
    site: Site, path: str
) -> None:
    if path == "/sign-in":
        await keys.make(site.keyring, site.settings, "a")
    async with site.http.get(path, allow_redirects=False) as answer:
        policy = dict(
            part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
        )
        assert answer.headers["cache-control"] == "no-store"

    assert policy["default-src"] == "'none'"
    assert {policy[of] for of in ("script-src", "style-src", "connect-src", "form-action")} == {
        "'self'"
    }
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"


@pytest.mark.parametrize(
    ("origin", "is_secure"),
    [(None, False), ("http://127.0.0.1:5000", False), ("https://batch.example.com", True)],
)
async def test_no_script_and_no_other_site_gets_the_cookie(
    site: Site, origin: str | None, is_secure: bool
) -> None:
    key = await keys.make(site.keyring, site.settings, "a")

    answer = await sign_in(site, key, origin=origin)

    assert (answer.status, answer.location) == (303, "/")
    cookie = answer.cookie
    assert cookie is not None
    assert cookie["httponly"] is True
    assert cookie["samesite"] == "strict"
    assert (cookie["secure"] is True) == is_secure
    assert cookie["path"] == "/"
    assert key not in cookie.OutputString()
    assert await opens(site, cookie.value)


async def test_a_wrong_key_opens_nothing(site: Site) -> None:
    await keys.make(site.keyring, site.settings, "a")

    answer = await sign_in(site, "sk-wrong")

    assert (answer.status, answer.cookie) == (403, None)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "evil.example",
        "",
    ],
)
async def test_signing_in_leads_to_no_other_site(site: Site, target: str) -> None:
    key = await keys.make(site.keyring, site.settings, "a")

    answer = await sign_in(site, key, next=target)

    reached = urljoin("http://here.example/sign-in", answer.location)
    assert reached.startswith("http://here.example/")
    assert "\t" not in answer.location


async def test_one_comes_to_where_one_was_going(site: Site) -> None:
    key = await keys.make(site.keyring, site.settings, "a")
    async with site.http.get("/?status=failed&after=x", allow_redirects=False) as sent_away:
        assert sent_away.status == 303
        target = sent_away.headers["location"]
    assert target == "/sign-in?" + urlencode({"next": "/?status=failed&after=x"})

    assert (await sign_in(site, key, next="/?status=failed")).location == "/?status=failed"


async def test_a_session_can_not_be_made_up(site: Site) -> None:
    first, second = [keys.leave(site.settings, tenant) for tenant in ("a", "b")]
    await site.keyring.take_orders_once()
    token = await token_of(site, first[1])
    id, session, began, until, kind, signature = token.split(".")
    assert id == first[0]

    made_up = [
        "",
        ".",
        "..",
        f"{second[0]}.{session}.{began}.{until}.{kind}.{signature}",
        f"{id}.{session}.{began}.{int(until) + 1}.{kind}.{signature}",
        f"{id}.{session}.{int(began) + 1}.{until}.{kind}.{signature}",
        f"{id}.{session}.{began}.{until}.https.{signature}",
        f"{id}.{session}.{began}.{until}0.{kind}.{signature}",
        f"{id}.{session}.{began}.{until}.{kind}.{signature[:-1]}",
        f"{id}.{session}.{began}.{until}.{kind}.{signature}.{signature}",
        f"{id}.{session}.{began}.{until}.{kind}.",
        f"{id}.{session}.{began}.{'9' * 500}.{kind}.{signature}",
        f"{id}.{session}.{began}.-1.{kind}.{signature}",
        f"{id}.{session}.{until}.{signature}",
    ]
    other = Sessions(b"x" * 32, site.keyring, site.clock, folder=site.settings.data_dir, ended={})
    key = site.keyring.valid(first[0])
    assert key is not None
    made_up.append(other.start(key, is_secure=False).token)
    assert await opens(site, token)
    assert [await opens(site, it) for it in made_up] == [False] * len(made_up)


async def test_a_session_that_nobody_uses_ends_after_a_week(site: Site) -> None:
    token = await token_of(site, await keys.make(site.keyring, site.settings, "a"))

    site.clock.turn(SESSION_SECONDS - 1)
    assert await opens(site, token)
    site.clock.turn(1)
    assert not await opens(site, token)


async def test_a_session_ends_with_its_key(site: Site) -> None:
    revoked = keys.leave(site.settings, "a")
    expiring = keys.leave(site.settings, "a", expires_at=START + 100)
    await site.keyring.take_orders_once()
    tokens = [await token_of(site, secret) for _, secret in (revoked, expiring)]

    await keys.revoke(site.keyring, site.settings, revoked[0])
    assert [await opens(site, token) for token in tokens] == [False, True]
    site.clock.turn(100)
    assert [await opens(site, token) for token in tokens] == [False, False]


async def test_signing_out_takes_the_cookie_away(site: Site) -> None:
    async with site.http.post("/sign-out", allow_redirects=False) as answer:
        cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
        assert (answer.status, answer.headers["location"]) == (303, "/sign-in")

    assert cookie.value == ""
    assert cookie["max-age"] == "0"


async def test_what_sessions_are_signed_with_is_the_owners_alone_and_in_no_backup(
    site: Site,
) -> None:
    secret = site.settings.data_dir / SECRET_FILE
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32

    copy = site.settings.data_dir.parent / "backup"
    back_up(site.settings.data_dir, copy)

    copied = [path for path in copy.rglob("*") if path.is_file()]
    assert SECRET_FILE not in {path.name for path in copied}
    assert not any(secret.read_bytes() in path.read_bytes() for path in copied)


async def test_a_secret_that_is_not_whole_is_made_anew(site: Site) -> None:
    token = await token_of(site, await keys.make(site.keyring, site.settings, "a"))
    secret = site.settings.data_dir / SECRET_FILE
    secret.write_bytes(b"torn")

    fresh = await Sessions.open(site.settings.data_dir, site.keyring, site.clock)

    assert len(secret.read_bytes()) == 32
    assert fresh.find(token) is None
