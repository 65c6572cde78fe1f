"""The charts, in a browser: drawn from the history that the database keeps."""

import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import OpenAI
from openai.types import Batch
from playwright.sync_api import Browser, Page, expect

from batch_api.store.progress import INTERVAL_SECONDS
from tests.dashboard.conftest import ended, line, start, visit
from tests.server import Server, StandinProcess
from tests.standin import Fault

pytestmark = pytest.mark.slow

_CHART = "figure.chart canvas"


def counting(condition: str) -> str:
    """JavaScript: of how many pixels of a canvas, of red, green, blue and alpha, this is so."""
    return f"""canvas => {{
      const {{ data }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let at = 0; at < data.length; at += 4) {{
        const [red, green, blue, alpha] = data.subarray(at, at + 4);
        count += {condition};
      }}
      return count;
    }}"""


_COUNT_PIXELS = counting("alpha > 0")
_GREEN = "alpha > 0 && green > red + 40 && green > blue + 10"
_COUNT_GREEN = counting(_GREEN)
_COUNT_GREEN_IN_THE_MIDDLE = counting(
    f"{_GREEN} && Math.abs((at / 4) % canvas.width - canvas.width / 2) < canvas.width / 4"
)


def some_lines(count: int) -> bytes:
    refused = str(Fault(status=400))
    return b"".join(line(f"row-{n}", refused if n % 5 == 0 else "hello") for n in range(count))


def fetched(server: Server, path: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(server.fetch(path))
    return found


def all_of(batch: Batch, series: dict[str, Any], column: str) -> float:
    """What the rates of its chart add up to."""
    assert batch.in_progress_at is not None
    assert batch.finalizing_at is not None
    times: list[int] = series["times"]
    rates: list[float] = series[column]
    assert times[0] == batch.in_progress_at
    steps = pairwise([*times, batch.finalizing_at + 1])
    return sum(rate * (end - begin) for rate, (begin, end) in zip(rates, steps, strict=True))


def go_to_fourteen_days(page: Page) -> None:
    """Their steps are hours, and one that has only begun is left out."""
    while time.time() % 3600 < INTERVAL_SECONDS + 1:
        time.sleep(0.5)
    page.goto("/activity?range=14d")


def test_charts_are_drawn_and_the_same_is_told_in_figures(
    page: Page, client: OpenAI, server: Server
) -> None:
    ended(client, start(client, some_lines(20)))
    go_to_fourteen_days(page)

    canvases = page.locator(_CHART)
    expect(canvases).to_have_count(3)
    for n in range(3):
        assert canvases.nth(n).evaluate(_COUNT_PIXELS) > 100
    rows = page.locator("#live tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.first).to_contain_text("Completed lines")


def test_a_chart_gets_new_data_and_is_never_made_anew(page: Page, client: OpenAI) -> None:
    page.goto("/activity")
    expect(page.locator(_CHART)).to_have_count(3)
    page.evaluate("window.firstCanvas = document.querySelector('figure.chart canvas')")
    for _ in range(3):
        with page.expect_response(re.compile("/activity/data")):
            page.evaluate(
                "htmx.ajax('GET', '/activity/data?range=1h', {source: '#activity', swap: 'none'})"
            )

    expect(page.locator(_CHART)).to_have_count(3)
    assert page.evaluate("window.firstCanvas.isConnected")


def test_colours_follow_the_theme(page: Page, client: OpenAI) -> None:
    ended(client, start(client, some_lines(5)))
    go_to_fourteen_days(page)
    expect(page.locator(_CHART).first).to_be_visible()
    hash_of = "canvas => canvas.toDataURL()"
    before = page.locator(_CHART).first.evaluate(hash_of)
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_function(
        "before => document.querySelector('figure.chart canvas').toDataURL() !== before",
        arg=before,
    )


@pytest.mark.parametrize("range", ["15m", "1h", "24h", "14d"])
def test_each_range_is_told_in_columns_of_one_length(server: Server, range: str) -> None:
    series = fetched(server, f"/activity/data?range={range}")

    lengths = {len(column) for name, column in series.items() if name != "step"}
    assert lengths == {len(series["times"])}
    assert 85 <= len(series["times"]) <= 361


def test_an_unknown_range_is_a_bad_address(page: Page, watch: Any) -> None:
    answer = page.goto("/activity?range=ever")

    assert answer is not None
    assert answer.status == 400
    expect(page.get_by_role("heading", level=1)).to_have_text("Bad Request")
    watch.forgive("400")


def test_the_history_survives_a_kill_and_is_drawn_after_it(
    browser: Browser, standin: StandinProcess, tmp_path: Path
) -> None:
    with Server(tmp_path, standin.url) as server:
        with server.client() as client:
            batch = ended(client, start(client, some_lines(20)))
        server.kill()
        server.start()
        series = fetched(server, f"/batches/{batch.id}/chart")
        with visit(browser, server.url) as (page, _):
            go_to_fourteen_days(page)
            expect(page.locator("figure.chart").first).not_to_have_class(re.compile("nothing"))
            assert page.locator(_CHART).first.evaluate(_COUNT_PIXELS) > 100

    assert all_of(batch, series, "completed") == pytest.approx(16, rel=0.01)
    assert all_of(batch, series, "failed") == pytest.approx(4, rel=0.01)


def test_a_batch_has_a_chart_of_its_own(server: Server, client: OpenAI) -> None:
    ended(client, start(client, some_lines(30)))
    batch = ended(client, start(client, some_lines(10)))

    series = fetched(server, f"/batches/{batch.id}/chart")

    assert series["step"] == 10
    assert all_of(batch, series, "completed") == pytest.approx(8, rel=0.01)
    assert any(value for value in series["p95"])


def test_a_chart_says_when_it_begins_and_has_all_of_a_batch_once_it_is_over(
    page: Page, standin: StandinProcess, client: OpenAI
) -> None:
    slow = str(Fault(delay_ms=10_000))
    batch = start(client, b"".join(line(f"row-{n}", f"{slow}{n}") for n in range(8)))
    page.goto(f"/batches/{batch.id}")
    chart = page.locator("figure.chart").first

    expect(chart).to_have_class(re.compile("nothing"))
    said = chart.evaluate("it => getComputedStyle(it, '::after').content")
    assert said == '"Nothing yet: what ends is drawn within 30 seconds."'
    expect(page.get_by_role("region", name="Overview")).to_contain_text("8 of 8")
    expect(chart).not_to_have_class(re.compile("nothing"))
    assert chart.locator("canvas").evaluate(_COUNT_GREEN) > 10
    latency = page.locator("figure.chart").last.locator("canvas")
    assert latency.evaluate(_COUNT_GREEN) > 10  # a ring around two others: all took as long


def test_a_batch_of_one_moment_has_a_dot_in_the_middle_of_its_chart(
    page: Page, server: Server, client: OpenAI
) -> None:
    batch = ended(client, start(client, some_lines(10)))
    page.goto(f"/batches/{batch.id}")
    chart = page.locator("figure.chart").first

    expect(chart).not_to_have_class(re.compile("nothing"))
    assert chart.locator("canvas").evaluate(_COUNT_GREEN_IN_THE_MIDDLE) > 10
