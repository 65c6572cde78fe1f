"""What people do with batches in the browser."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from batch_api.in_words import duration_in_words
from tests.dashboard.conftest import Watch, answered, ended, line, start, visit
from tests.server import Server, StandinProcess
from tests.standin import HANG, NO_FAULT, Fault, answer_to

pytestmark = pytest.mark.slow

REFUSED = Fault(status=400)
CANCELLED = re.compile("(The batch is )?cancell(ing|ed)")
"""Sooner or later."""
REFUSED_ONCE = Fault(status=400, times=1)

FileNamed = Callable[[str, bytes], Path]


def rows(page: Page) -> list[str]:
    """Of the lines of a batch: each one's cells, joined."""
    return [" ".join(row.split()) for row in page.locator("table.lines tbody tr").all_inner_texts()]


def id_of(page: Page) -> str:
    return page.url.partition("/batches/")[2].partition("?")[0]


def test_a_file_becomes_a_batch_that_finishes_while_one_looks_on(
    page: Page, client: OpenAI, file_named: FileNamed
) -> None:
    content = b"".join(line(f"row-{n}", f"{Fault(delay_ms=300)}text {n}") for n in range(20))
    page.goto("/")
    page.get_by_role("link", name="New batch").click()

    page.get_by_label("File", exact=True).set_input_files(file_named("questions.jsonl", content))
    page.get_by_role("button", name="Add a pair").click()
    page.get_by_label("Name", exact=True).fill("project")
    page.get_by_label("Value", exact=True).fill("evaluation")
    page.get_by_role("button", name="Create the batch").click()

    page.wait_for_url("**/batches/batch_*")
    page.evaluate("window.isTheSamePage = true")
    state = page.get_by_role("region", name="Overview").locator(".state")
    expect(state).to_have_text("completed")
    assert page.evaluate("window.isTheSamePage")
    expect(page.get_by_role("region", name="Overview")).to_contain_text("20 of 20")
    batch = client.batches.retrieve(id_of(page))
    assert batch.metadata == {"project": "evaluation"}
    assert client.files.content(batch.input_file_id).content == content

    with page.expect_download() as download:
        page.get_by_role("link", name=f"{batch.id}_output.jsonl").click()
    assert batch.output_file_id is not None
    assert download.value.suggested_filename == f"{batch.id}_output.jsonl"
    fetched = Path(download.value.path()).read_bytes()
    assert fetched == client.files.content(batch.output_file_id).content


def test_a_batch_is_cancelled_with_the_keyboard_alone(
    page: Page, client: OpenAI, standin: StandinProcess
) -> None:
    content = line("quick", "answered") + line("stuck", f"{HANG}by keyboard")
    batch = answered(client, start(client, content), 1)
    page.goto(f"/batches/{batch.id}")
    cancel = page.get_by_role("button", name="Cancel", exact=True)

    cancel.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="No")).to_be_focused()
    page.keyboard.press("Escape")
    expect(cancel).to_be_focused()
    assert client.batches.retrieve(batch.id).status == "in_progress"

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel the batch")).to_be_focused()
    page.keyboard.press("Enter")

    state = page.get_by_role("region", name="Overview").locator(".state")
    expect(state).to_have_text(CANCELLED)
    expect(page.locator("#told")).to_have_text(CANCELLED)
    expect(cancel).to_have_count(0)
    expect(page.locator("main")).to_be_focused()
    assert CANCELLED.match(client.batches.retrieve(batch.id).status)


def test_a_batch_without_an_answer_says_what_goes_on(
    page: Page, client: OpenAI, standin: StandinProcess
) -> None:
    batch = start(client, b"".join(line(f"{n}", f"{HANG}silent {n}") for n in range(3)))
    page.goto(f"/batches/{batch.id}?state=leased")

    overview = page.get_by_role("region", name="Overview")
    expect(overview).to_contain_text("3 lines are with the workers, or next to be sent; none has")
    assert [row.split()[1:5] for row in rows(page)] == [
        [str(n), "Taken", "up", "1"] for n in range(3)
    ]
    client.batches.cancel(batch.id)
    expect(overview.get_by_text("cancelled", exact=True)).to_be_visible()
    ended(client, batch)

    standin.set_fault(Fault(status=503, retry_after="1"))
    batch = start(client, line("a"))
    page.goto(f"/batches/{batch.id}")
    expect(overview).to_contain_text("No worker takes requests now.")
    standin.set_fault(NO_FAULT)
    expect(overview.locator(".state")).to_have_text("completed")


def test_time_goes_on_between_answers(page: Page, client: OpenAI) -> None:
    batch = start(client, line("a", f"{HANG}for some time"))
    page.goto(f"/batches/{batch.id}")
    place = ".steps [data-seconds]"
    expect(page.locator(place)).to_be_visible()
    page.evaluate("window.told = new Set(), window.answered = new Set()")
    page.wait_for_function(
        """place => {
          const { textContent, dataset } = document.querySelector(place);
          answered.add(dataset.seconds);
          return told.add(textContent).size >= 7;
        }""",
        arg=place,
    )

    assert page.evaluate("answered.size < told.size")
    assert page.locator(":is([aria-live], [role=status]) [data-seconds]").count() == 0
    for seconds in (0.2, 59, 61, 3600, 7530, 86_400, 200_000):
        assert page.evaluate(f"duration({seconds})") == duration_in_words(seconds)
    left = page.evaluate(
        """() => {
          const place = document.createElement("span");
          Object.assign(place.dataset, { seconds: "90.4", each: "-1" });
          tick(place);
          return place.textContent;
        }"""
    )
    assert left == duration_in_words(90)
    client.batches.cancel(batch.id)
    ended(client, batch)


def test_failed_lines_are_retried_in_a_new_batch_with_both_results(
    page: Page, client: OpenAI
) -> None:
    content = line("well", "well") + line("later", f"{REFUSED_ONCE}at the second try")
    old = ended(client, start(client, content))
    page.goto(f"/batches/{old.id}?state=failed")
    (row,) = rows(page)
    assert row.startswith("2 later Failed 1")
    assert row.endswith("400 as told: 400")
    expect(page.get_by_role("region", name="Overview")).to_contain_text(
        "It was refused for what it asks, and most likely would be again."
    )

    page.get_by_role("button", name="Retry 1 failed line").click()

    page.wait_for_url(lambda url: "/batches/batch_" in url and old.id not in url)
    expect(page.get_by_role("link", name=old.id)).to_be_visible()
    expect(page.get_by_role("region", name="Overview")).to_contain_text("2 of 2")
    new = ended(client, client.batches.retrieve(id_of(page)))
    assert new.output_file_id is not None
    output = client.files.content(new.output_file_id).text
    assert [answer_to(text) in output for text in ("well", "at the second try")] == [True, True]


def test_what_is_wrong_with_a_file_is_said_line_by_line(page: Page, file_named: FileNamed) -> None:
    content = line("right") + b"nonsense\n" + b'{"custom_id": "no-body", "method": "POST"}\n'
    page.goto("/new")
    page.get_by_label("File", exact=True).set_input_files(file_named("in.jsonl", content))
    page.get_by_role("button", name="Create the batch").click()

    problems = page.get_by_role("region", name="Why it failed").locator("tbody tr")
    expect(problems).to_have_count(3)
    cells = [row.locator("td").all_inner_texts() for row in problems.all()]
    assert cells[0][0] == "2"
    assert cells[0][3] == "invalid_json_line"
    assert cells[1:] == [
        ["3", f"Missing required parameter: '{name}'.", name, "missing_required_parameter"]
        for name in ("url", "body")
    ]


def test_a_file_that_is_refused_is_explained_at_its_field(
    page: Page, watch: Watch, file_named: FileNamed
) -> None:
    page.goto("/new")
    create = page.get_by_role("button", name="Create the batch")
    file = page.get_by_label("File", exact=True)
    problem = page.locator("#file-error")

    create.click()
    expect(problem).to_have_text("Choose a file first.")
    expect(file).to_be_focused()
    file.set_input_files(file_named("picture.jsonl", b"\x89PNG"))
    create.click()
    expect(problem).to_contain_text("Must be .jsonl, but line 1 is not a JSON object.")
    assert file.get_attribute("aria-invalid") == "true"
    file.set_input_files(file_named("broken.jsonl.gz", b"no gzip"))
    create.click()
    expect(problem).to_have_text("The file can’t be read: is it really gzip?")
    watch.forgive("status of 400")


@pytest.mark.parametrize(
    ("status", "told"), [("expired", "No batch is expired."), ("x", "Bad Req")]
)
def test_a_list_with_nothing_in_it_says_why(
    page: Page, watch: Watch, status: str, told: str
) -> None:
    page.goto(f"/?status={status}")

    expect(page.get_by_role("main")).to_contain_text(told)
    watch.complaints = [it for it in watch.complaints if "status of 400" not in it]


def test_what_is_left_of_a_cancelled_batch_is_continued(page: Page, client: OpenAI) -> None:
    held_up = Fault(ending="hang", times=1)
    old = answered(client, start(client, line("done") + line("left", f"{held_up}left")), 1)
    page.goto(f"/batches/{old.id}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the batch").click()

    page.get_by_role("button", name="Continue with 1 line").click()

    page.wait_for_url(lambda url: "/batches/batch_" in url and old.id not in url)
    state = page.get_by_role("region", name="Overview").locator(".state")
    expect(state).to_have_text("completed")
    assert [row.split()[1:3] for row in rows(page)] == [
        ["done", "Completed"],
        ["left", "Completed"],
    ]


def test_a_file_that_is_there_becomes_another_batch(page: Page, client: OpenAI) -> None:
    content = line("a").replace(b"/v1/chat/completions", b"/v1/embeddings")
    file = client.files.create(file=("vectors.jsonl", content), purpose="batch")
    page.goto(f"/new?file={file.id}")

    expect(page.get_by_label("Endpoint")).to_have_value("/v1/embeddings")
    page.get_by_role("button", name="Create the batch").click()

    page.wait_for_url("**/batches/batch_*")
    assert client.batches.retrieve(id_of(page)).input_file_id == file.id


def test_a_compressed_file_is_sent_as_what_is_in_it(
    page: Page, client: OpenAI, file_named: FileNamed
) -> None:
    content = line("a").replace(b"/v1/chat/completions", b"/v1/completions") + line("b")
    page.goto("/new")
    packed = file_named("in.jsonl.gz", gzip.compress(content))

    page.get_by_label("File", exact=True).set_input_files(packed)
    expect(page.get_by_label("Endpoint")).to_have_value("/v1/completions")
    page.get_by_role("button", name="Create the batch").click()

    page.wait_for_url("**/batches/batch_*")
    file = client.files.retrieve(client.batches.retrieve(id_of(page)).input_file_id)
    assert file.filename == "in.jsonl"
    assert client.files.content(file.id).content == content


def test_a_list_that_is_open_shows_new_batches_and_how_they_go_on(
    page: Page, client: OpenAI
) -> None:
    page.goto("/")
    page.get_by_role("link", name="New batch").focus()

    batch = start(client, line("a", f"{HANG}b"))
    row = page.locator(f"#{batch.id}")
    expect(row).to_contain_text("in progress")
    client.batches.cancel(batch.id)
    expect(row).to_contain_text(CANCELLED)
    expect(page.get_by_role("link", name="New batch")).to_be_focused()


def test_lists_can_be_narrowed_and_turned(page: Page, client: OpenAI) -> None:
    content = b'{"is": "no request"}\n'
    failed = [ended(client, start(client, content)).id for _ in range(26)]
    page.goto("/")
    page.get_by_role("link", name="Failed", exact=True).click()

    shown = page.locator("table.batches tbody tr")
    expect(page.locator(".choices [aria-current]")).to_have_text("Failed")
    assert [row.get_attribute("id") for row in shown.all()] == failed[:0:-1]
    page.get_by_role("link", name="Older").click()
    expect(page.locator(f"#{failed[0]}")).to_be_visible()
    assert set(page.locator("table.batches .status").all_inner_texts()) == {"failed"}
    page.get_by_role("link", name="Newest").click()
    expect(shown.first).to_have_id(failed[-1])


def test_lines_can_be_narrowed_and_turned(page: Page, client: OpenAI) -> None:
    lines = [line(f"row-{n}", f"{REFUSED}{n}" if n % 2 else f"{n}") for n in range(1, 121)]
    batch = ended(client, start(client, b"".join(lines)))
    page.goto(f"/batches/{batch.id}")
    page.get_by_role("navigation", name="Which lines").get_by_role("link", name="Failed").click()

    expect(page.locator("table.lines tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Next").click()
    expect(page.locator("table.lines tbody tr")).to_have_count(10)
    assert [row.split()[1] for row in rows(page)] == [f"row-{n}" for n in range(101, 120, 2)]

    page.get_by_role("link", name="row-119").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Line 119: row-119")
    expect(page.get_by_role("region", name="Request").locator("pre").first).to_contain_text("119")
    answer = page.get_by_role("region", name="Answer").locator("pre").first
    expect(answer).to_contain_text('"custom_id": "row-119"')
    page.goto(f"/batches/{batch.id}/lines/120")
    expect(answer).to_contain_text('"custom_id": "row-120"')


def test_what_a_line_says_is_opened_and_stays_open(page: Page, client: OpenAI) -> None:
    batch = ended(client, start(client, line("a", "question")))
    page.goto(f"/batches/{batch.id}/lines/1")
    raw = page.locator("#raw-request")
    raw.locator("summary").click()

    with page.expect_response(lambda answer: answer.url == page.url):
        page.evaluate("refresh()")
    expect(page.locator("#live")).not_to_have_class("htmx-request")

    assert raw.get_attribute("open") is not None
    expect(raw).to_contain_text('"content":"question"')


def test_a_server_that_is_away_is_said_and_what_is_shown_is_right_afterwards(
    browser: Browser, standin: StandinProcess, tmp_path: Path
) -> None:
    with (
        Server(tmp_path, standin.url) as server,
        server.client() as client,
        visit(browser, server.url) as (page, watch),
    ):
        page.goto("/")
        expect(page.get_by_role("heading", name="There are no batches yet")).to_be_visible()
        expect(page.get_by_role("main")).to_contain_text(f'base_url="{server.url}/v1"')
        server.kill()
        expect(page.get_by_text("The connection to the server is lost")).to_be_visible()
        server.start()
        batch = start(client, line("a"))

        expect(page.locator(f"#{batch.id}")).to_contain_text("completed")
        expect(page.get_by_text("The connection to the server is lost")).to_be_hidden()
        watch.complaints.clear()  # of a server that was away


@pytest.mark.parametrize("path", ["/batches/{id}", "/batches/{id}/lines/1"])
def test_a_page_of_what_is_over_asks_for_nothing_when_others_write(
    page: Page, client: OpenAI, path: str
) -> None:
    batch = ended(client, start(client, line("row")))
    page.goto(path.format(id=batch.id))
    expect(page.locator("#condition")).to_have_text("ready")
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("htmx.trigger('#live', 'sse:changed')")
    with page.expect_response(re.compile("/condition")):
        page.evaluate("htmx.trigger('#condition', 'sse:tick')")

    assert [url for url in asked if batch.id in url] == []
