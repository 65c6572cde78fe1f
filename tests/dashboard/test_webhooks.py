"""Who was told of a batch's end, on the batch's page."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.conftest import ended, line, start, visit
from tests.receiver import SECRET, Receiver, Reply
from tests.server import Server, StandinProcess

pytestmark = pytest.mark.slow

TOKEN = "xyzzy"


def test_a_batch_s_page_tells_who_was_told_of_its_end_and_no_secret_of_a_url(
    browser: Browser, standin: StandinProcess, tmp_path: Path
) -> None:
    with Receiver() as good, Receiver() as bad:
        bad.usual = Reply(500)
        urls = [good.url(), bad.url(f"/{TOKEN}?token={TOKEN}")]
        settings = {"webhook_urls": json.dumps(urls), "webhook_secret": SECRET}
        with (
            Server(tmp_path, standin.url, settings=settings) as server,
            server.client() as client,
            visit(browser, server.url) as (page, _),
        ):
            batch = ended(client, start(client, line("row-1")))
            server.wait_until_logged("webhook delivered")
            server.wait_until_logged("webhook failed")
            page.goto(f"/batches/{batch.id}")

            assert told(page, good) == f"http://{good.host} delivered 1"
            assert told(page, bad) == f"http://{bad.host} waiting 1"
            row = page.get_by_role("row", name=bad.host)
            expect(row).to_contain_text("next try")
            expect(row).to_contain_text("answers 500")
            assert TOKEN not in page.content()


def told(page: Page, receiver: Receiver) -> str:
    """The first cells of its row."""
    row = page.get_by_role("region", name="Webhooks").get_by_role("row", name=receiver.host)
    cells = row.locator("th, td").all_inner_texts()
    return " ".join(cells[:3])


def test_a_batch_that_nobody_is_told_of_has_no_such_part(
    browser: Browser, server: Server, page: Page
) -> None:
    with server.client() as client:
        batch = ended(client, start(client, line("row-1")))
    page.goto(f"/batches/{batch.id}")

    expect(page.get_by_role("region", name="Overview")).to_contain_text("completed")
    expect(page.get_by_role("region", name="Webhooks")).to_have_count(0)
