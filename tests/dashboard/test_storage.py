"""The storage page, in a browser."""

from pathlib import Path

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.conftest import line, visit
from tests.server import Server, StandinProcess

pytestmark = pytest.mark.slow


def test_the_largest_files_can_be_deleted_there(page: Page, client: OpenAI) -> None:
    content = line("row", "x" * 300_000)
    keep = client.files.create(file=("keep.jsonl", content), purpose="batch")
    gone = client.files.create(file=("gone.jsonl", content + content), purpose="batch")
    page.goto("/storage")
    expect(page.locator(f"#{gone.id}")).to_contain_text("gone.jsonl")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete gone.jsonl").click()

    expect(page.locator(f"#{gone.id}")).to_have_count(0)
    expect(page.locator(f"#{keep.id}")).to_be_visible()
    assert gone.id not in [file.id for file in client.files.list()]
    client.files.delete(keep.id)


def test_nothing_is_deleted_without_a_yes(page: Page, client: OpenAI) -> None:
    file = client.files.create(file=("mine.jsonl", line("row", "x" * 300_000)), purpose="batch")
    page.goto("/storage")
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete mine.jsonl").click()

    assert file.id in [each.id for each in client.files.list()]
    client.files.delete(file.id)


def test_names_of_files_are_text(page: Page, client: OpenAI) -> None:
    name = "<b onmouseover=alert(1)>\"'.jsonl"
    file = client.files.create(file=(name, line("row", "x" * 400_000)), purpose="batch")
    page.goto("/storage")

    expect(page.locator(f"#{file.id} th")).to_contain_text("<b onmouseover=alert(1)>")
    client.files.delete(file.id)


def test_a_low_disk_is_said_with_what_follows_from_it(
    browser: Browser, standin: StandinProcess, tmp_path: Path
) -> None:
    settings = {"min_free_bytes": 2**50, "keep_results_days": 30, "max_stored_bytes": 5_000_000}
    with (
        Server(tmp_path, standin.url, settings=settings) as server,
        visit(browser, server.url) as (page, _),
    ):
        page.goto("/storage")

        expect(page.get_by_role("alert")).to_contain_text("nothing is taken in")
        expect(page.locator("#condition")).to_contain_text("degraded")
        expect(page.locator("main")).to_contain_text("30 days, if not deleted before")
        expect(page.locator("main")).to_contain_text("0 B of 4.8 MiB")
