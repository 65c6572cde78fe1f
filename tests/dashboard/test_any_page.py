"""What holds for each page: whatever it shows, for whoever looks at it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.conftest import ended, line, start, visit
from tests.dashboard.probes import CONTRASTS, NAMELESS, TWICE
from tests.server import Server
from tests.standin import Fault

pytestmark = pytest.mark.slow

SCRIPT = "<script>document.title = 'taken over'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'taken over'\">"
RIGHT_TO_LEFT = "\u202egpj.exe\u202c"
LONG = "w" * 300
HOSTILE = f"\"'>{SCRIPT}{IMAGE}{RIGHT_TO_LEFT}"
REFUSED = Fault(status=400, body=f'{{"error": {{"message": "no {IMAGE.replace(chr(34), "")}"}}}}')

PAGES = ["list", "new", "new of a file", "batch", "failed batch", "line", "refused line"]
PAGES += ["activity", "workers", "storage", "playground"]
SMALLEST_CONTRAST = 4.5


@dataclass(frozen=True)
class Shown:
    """Pages full of what somebody else has written."""

    addresses: dict[str, str]
    texts: dict[str, list[str]]
    """What must stand on them, word for word."""


@pytest.fixture(scope="module")
def shown(client: OpenAI) -> Shown:
    metadata = {HOSTILE[:64]: HOSTILE + LONG[:100]}
    content = line(HOSTILE + LONG[:200], SCRIPT + IMAGE) + line("no", f"{REFUSED}{LONG}")
    batch = ended(
        client,
        start(
            client, content, filename=f"{SCRIPT}{RIGHT_TO_LEFT}{LONG[:90]}.jsonl", metadata=metadata
        ),
    )
    failed = ended(client, start(client, line("x", model=IMAGE)))
    # Large, since the storage page tells the largest ones only.
    large = (f"{SCRIPT}{RIGHT_TO_LEFT}.bin", bytes(1024 * 1024))
    client.files.create(file=large, purpose="user_data")
    page = f"/batches/{batch.id}"
    return Shown(
        addresses={
            "list": "/",
            "new": "/new",
            "new of a file": f"/new?file={batch.input_file_id}",
            "batch": page,
            "failed batch": f"/batches/{failed.id}",
            "line": f"{page}/lines/1",
            "refused line": f"{page}/lines/2",
            **{name: f"/{name}" for name in ("activity", "workers", "storage", "playground")},
        },
        texts={
            "list": [HOSTILE],
            "new of a file": [SCRIPT + RIGHT_TO_LEFT],
            "batch": [HOSTILE[:64], HOSTILE + LONG[:100], HOSTILE + LONG[:200]],
            "failed batch": [IMAGE],
            "line": [HOSTILE + LONG[:200], SCRIPT, SCRIPT[::-1]],
            "refused line": [LONG, "onerror="],
            "storage": [SCRIPT + RIGHT_TO_LEFT],
        },
    )


@pytest.mark.parametrize("name", PAGES)
def test_what_others_have_written_stays_text(page: Page, shown: Shown, name: str) -> None:
    page.goto(shown.addresses[name])

    told = page.get_by_role("main").evaluate("main => main.textContent")
    for text in shown.texts.get(name, []):
        assert text in told
    assert page.locator("main img, main script, main iframe").count() == 0
    assert "taken over" not in page.title()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(browser: Browser, server: Server, shown: Shown, name: str) -> None:
    with visit(browser, server.url, viewport={"width": 390, "height": 844}) as (page, _):
        page.goto(shown.addresses[name])

        assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_used_without_seeing_it(page: Page, shown: Shown, name: str) -> None:
    page.goto(shown.addresses[name])

    assert page.locator("h1").count() == 1
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("nav[aria-label='Pages'] [aria-current]").count() == 1
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(TWICE) == []
    assert page.locator("th:not([scope]):not(.u-legend *)").count() == 0
    assert page.locator("[aria-live] progress, [aria-live] [role=progressbar]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_stands_out_in_light_and_dark(
    browser: Browser, server: Server, shown: Shown, name: str, scheme: Literal["light", "dark"]
) -> None:
    with visit(browser, server.url, color_scheme=scheme) as (page, _):
        page.goto(shown.addresses[name])

        pale = [it for it in page.evaluate(CONTRASTS) if it["contrast"] < SMALLEST_CONTRAST]
        assert pale == []


def test_times_are_told_in_one_form_and_their_zone_once(
    browser: Browser, server: Server, client: OpenAI
) -> None:
    batch = ended(client, start(client, line("a")))
    zone = {"timezone_id": "America/New_York", "locale": "en-US"}
    with visit(browser, server.url, **zone) as (page, _):
        page.goto(f"/batches/{batch.id}")

        expect(page.get_by_role("contentinfo")).to_contain_text("Times are in America/New_York")
        there = datetime.fromtimestamp(batch.created_at, ZoneInfo("America/New_York"))
        told = f"{there:%Y-%m-%d %H:%M:%S}"
        expect(page.locator(".steps time").first).to_have_text(told)
        assert page.evaluate(f"moment(null, {batch.created_at})") == told


def test_a_chosen_theme_stays(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, color_scheme="light") as (page, _):
        page.goto("/")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)

        page.get_by_role("button", name="Switch between light and dark").click()
        dark = page.evaluate(ground)
        assert dark != light
        page.reload()
        assert page.evaluate(ground) == dark


def test_the_first_tab_leads_past_the_navigation(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")

    focused = page.locator(":focus")
    expect(focused).to_have_text("New batch")
    outline = focused.evaluate("it => getComputedStyle(it).outlineStyle")
    assert outline == "solid"
