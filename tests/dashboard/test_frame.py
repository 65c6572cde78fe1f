"""What all pages have in common."""

from playwright.sync_api import Page, expect


def test_the_first_page_has_one_heading_and_says_where_it_is(page: Page) -> None:
    page.goto("/")

    expect(page.get_by_role("heading", level=1)).to_have_text("Batches")
    current = page.get_by_role("navigation", name="Pages").locator("[aria-current=page]")
    expect(current).to_have_text("Batches")
