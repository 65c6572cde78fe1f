"""Sessions in the browser, at a server that wants keys."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from batch_api.settings import Settings
from batch_api.store.orders import Orders, Revocation
from tests.api import keys
from tests.dashboard.conftest import Watch, ended, line, start, visit
from tests.server import Server, StandinProcess

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Locked:
    """A server with a key for each of two tenants, and for the operator."""

    server: Server
    settings: Settings
    ours: tuple[str, str]
    """Its id and its secret."""
    theirs: tuple[str, str]
    operator: tuple[str, str]
    """Of the tenant `default`."""

    def client(self, key: tuple[str, str]) -> OpenAI:
        return OpenAI(base_url=f"{self.server.url}/v1", api_key=key[1])


@pytest.fixture(scope="module")
def locked(standin: StandinProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder: Path = tmp_path_factory.mktemp("locked")
    server = Server(folder, standin.url)
    server.data_dir.mkdir()
    settings = Settings(data_dir=server.data_dir)
    ours, theirs, operator = [
        keys.leave(settings, tenant) for tenant in ("ours", "theirs", "default")
    ]
    with server:
        yield Locked(server, settings, ours, theirs, operator)


@pytest.fixture
def visitor(browser: Browser, locked: Locked) -> Iterator[tuple[Page, Watch]]:
    with visit(browser, locked.server.url) as visitor:
        yield visitor


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_wrong_key_is_refused_and_a_right_one_leads_to_where_one_was_going(
    page: Page, watch: Watch, locked: Locked
) -> None:
    page.goto("/?status=completed")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")

    sign_in(page, "sk-wrong")
    expect(page.get_by_role("alert")).to_have_text("That key opens nothing here.")
    expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    watch.forgive("status of 403")
    sign_in(page, locked.ours[1])

    page.wait_for_url("**/?status=completed")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Strict"
    assert locked.ours[1] not in page.content()


def test_a_session_does_what_its_key_may_and_sees_nothing_of_others(
    page: Page, watch: Watch, locked: Locked
) -> None:
    with locked.client(locked.ours) as us, locked.client(locked.theirs) as them:
        ours = ended(us, start(us, line("ours")))
        theirs = ended(them, start(them, line("theirs")))
    page.goto("/sign-in")
    sign_in(page, locked.ours[1])

    expect(page.get_by_role("link", name=ours.id)).to_be_visible()
    assert theirs.id not in page.content()
    page.goto(f"/batches/{ours.id}")
    expect(page.locator("dt:text-is('Tenant') + dd")).to_have_text("ours")
    for path in (f"/batches/{theirs.id}", f"/batches/{theirs.id}/lines/1"):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_have_text("Not Found")
        expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        watch.forgive("status of 404")
    page.goto(f"/new?file={theirs.input_file_id}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not Found")
    watch.forgive("status of 404")

    page.goto(f"/batches/{ours.id}")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete the batch").click()
    page.wait_for_url(f"{locked.server.url}/")
    expect(page.get_by_role("link", name=ours.id)).to_have_count(0)


def test_who_signs_out_is_out(page: Page, locked: Locked) -> None:
    page.goto("/sign-in")
    sign_in(page, locked.ours[1])

    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert page.context.cookies() == []


def test_a_session_outlives_a_restart_and_ends_when_its_key_is_revoked(
    page: Page, watch: Watch, locked: Locked
) -> None:
    key = keys.leave(locked.settings, "ours")
    orders = Orders(locked.settings.data_dir)
    page.goto("/sign-in")
    wait_until_taken(page, orders)
    sign_in(page, key[1])
    expect(page.get_by_role("heading", level=1)).to_have_text("Batches")

    locked.server.terminate()
    expect(page.locator("#connection")).to_be_visible()
    locked.server.start()
    expect(page.locator("#connection")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Batches")

    orders.leave(Revocation(key[0], 1_795_000_000))
    wait_until_taken(page, orders)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    watch.complaints.clear()  # of a server that was away


def wait_until_taken(page: Page, orders: Orders) -> None:
    while orders.waiting():
        page.wait_for_timeout(20)


def test_what_is_the_operators_is_shown_to_no_other_tenant(locked: Locked) -> None:
    seen = {}
    for name, (_, secret) in (("operator", locked.operator), ("other", locked.ours)):
        headers = {"authorization": f"Bearer {secret}"}
        seen[name] = ""
        for path in ("/workers", "/storage"):
            asked = urllib.request.Request(locked.server.url + path, headers=headers)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                seen[name] += answer.read().decode()

    for text in ("Upstreams", "<h2><code>http://", "Of batches at once", "The server's disk"):
        assert text in seen["operator"]
        assert text not in seen["other"]
    assert "Worker 1" in seen["other"]
    assert "Your files" in seen["other"]
