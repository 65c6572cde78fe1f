"""The workers page, in a browser, over workers that are up, down, strange, or hostile."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.conftest import Watch, visit
from tests.dashboard.workers import answering, vllm
from tests.server import Server, StandinProcess

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Of the worker that is up."""
    return {"/metrics": vllm(model=EVIL, running=6, tokens=0)}


@pytest.fixture(scope="module")
def watching(
    standin: StandinProcess, pages: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that looks after a worker, a dead one, and something else."""
    with socket.socket() as closed, answering(pages) as up, answering({}) as strange:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}"
        urls = f'["{up}", "{dead}", "{strange}"]'
        folder = tmp_path_factory.mktemp("watching")
        with Server(folder, standin.url, settings={"workers": urls}) as server:
            yield server


@pytest.fixture
def workers(browser: Browser, watching: Server) -> Iterator[Page]:
    with visit(browser, watching.url) as (page, _):
        page.goto("/workers")
        yield page


def test_each_worker_says_how_it_is(workers: Page) -> None:
    up, dead, strange = (workers.locator("li.worker").nth(n) for n in range(3))

    expect(up.locator(".status")).to_have_text("ready")
    expect(up).to_contain_text("Running6")
    expect(up).to_contain_text("Waiting6")
    expect(up).to_contain_text("75 %")
    expect(dead.locator(".status")).to_have_text("down")
    expect(dead).not_to_contain_text("secret")
    expect(strange.locator(".status")).to_have_text("answering")
    expect(strange).to_contain_text("/metrics")


def test_names_of_models_are_text(workers: Page) -> None:
    expect(workers.locator("li.worker").first.locator(".model")).to_have_text(EVIL)


def test_the_page_is_live(workers: Page, pages: dict[str, str]) -> None:
    pages["/metrics"] = vllm(model=EVIL, running=8, tokens=10_000)

    expect(workers.locator("li.worker").first).to_contain_text("Running8")


def test_upstreams_are_told_with_their_circuit(workers: Page, standin: StandinProcess) -> None:
    row = workers.get_by_role("row").filter(has_text=standin.url)

    expect(row).to_contain_text("up")
    expect(row.get_by_role("cell").last).to_have_text("128")


def test_an_upstream_that_is_away_is_down_and_the_header_says_so(
    browser: Browser, tmp_path: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with Server(tmp_path, url) as server, visit(browser, server.url) as (page, _):
            page.goto("/workers")
            expect(page.locator("#condition")).to_contain_text("not ready")
            expect(page.locator("li.worker .status")).to_have_text("down")
            expect(page.get_by_role("row").filter(has_text=url)).to_contain_text("down")


def test_the_header_says_that_all_is_well(page: Page, watch: Watch) -> None:
    page.goto("/workers")

    expect(page.locator("#condition")).to_have_text("ready")
