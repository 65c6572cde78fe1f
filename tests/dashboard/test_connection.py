"""What a page that is open does when its server, its session or its visitor goes away."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from batch_api.settings import Settings
from batch_api.store.orders import Orders, Revocation
from tests.api import keys
from tests.dashboard.conftest import visit
from tests.server import Server, StandinProcess

pytestmark = pytest.mark.slow

HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
OPEN = "pageEvents?.readyState === EventSource.OPEN"
CLOSED = "pageEvents?.readyState === EventSource.CLOSED"


def wait_until_it_listens(page: Page) -> None:
    while not page.evaluate(OPEN):
        page.wait_for_timeout(20)


def test_a_page_listens_only_while_somebody_looks(page: Page) -> None:
    page.goto("/")
    wait_until_it_listens(page)

    page.evaluate(HIDE, True)
    assert page.evaluate(CLOSED)

    with page.expect_request("**/events"):
        page.evaluate(HIDE, False)
    wait_until_it_listens(page)
    expect(page.locator("#connection")).to_be_hidden()


@pytest.mark.timeout(120)
def test_a_page_whose_session_has_ended_leads_to_the_sign_in(
    browser: Browser, standin: StandinProcess, tmp_path: Path
) -> None:
    server = Server(tmp_path, standin.url)
    server.data_dir.mkdir()
    settings = Settings(data_dir=server.data_dir)
    id, key = keys.leave(settings, "a")
    with server, visit(browser, server.url) as (page, watch):
        page.goto("/")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Batches")
        wait_until_it_listens(page)

        Orders(settings.data_dir).leave(Revocation(id, 1_795_000_000))

        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        watch.complaints.clear()  # of the events that were refused
