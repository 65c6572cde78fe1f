"""What all pages have in common."""

from collections import Counter
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect

from tests.server import Server

pytestmark = pytest.mark.slow


def test_the_first_page_has_one_heading_and_says_where_it_is(page: Page) -> None:
    page.goto("/")

    expect(page.get_by_role("heading", level=1)).to_have_text("Batches")
    current = page.get_by_role("navigation", name="Pages").locator("[aria-current=page]")
    expect(current).to_have_text("Batches")


def test_no_header_of_a_page_is_said_twice(server: Server) -> None:
    with urlopen(server.url) as answer:
        said = Counter(name.lower() for name in answer.headers)

    assert said["referrer-policy"] == 1
    assert set(said.values()) == {1}
