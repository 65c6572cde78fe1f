"""What people do with batches in the browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Watch, answered, ended, line, start
from tests.server import StandinProcess
from tests.standin import HANG, Fault, answer_to

REFUSED = Fault(status=400)
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
    expect(state).to_have_text("cancelling")
    expect(page.get_by_role("status").filter(has_text="The batch is cancelling.")).to_have_count(1)
    expect(cancel).to_have_count(0)
    expect(page.locator("main")).to_be_focused()
    assert client.batches.retrieve(batch.id).status == "cancelling"


def test_failed_lines_are_retried_in_a_new_batch_with_both_results(
    page: Page, client: OpenAI
) -> None:
    content = line("well", "well") + line("later", f"{REFUSED_ONCE}at the second try")
    old = ended(client, start(client, content))
    page.goto(f"/batches/{old.id}?state=failed")
    (row,) = rows(page)
    assert row.startswith("2 later Failed 1")
    assert row.endswith("400 as told: 400")

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
    expect(problem).to_have_text("Invalid file format for Batch API. Must be .jsonl")
    assert file.get_attribute("aria-invalid") == "true"
    file.set_input_files(file_named("broken.jsonl.gz", b"no gzip"))
    create.click()
    expect(problem).to_have_text("The file can’t be read: is it really gzip?")
    watch.forgive("status of 400")


@pytest.mark.parametrize(
    ("show", "heading"), [("failed", "No batch is failed."), ("nonsense", "Bad Request")]
)
def test_a_list_without_batches_says_so(page: Page, watch: Watch, show: str, heading: str) -> None:
    page.goto(f"/?status={'expired' if show == 'failed' else show}")

    text = heading.replace("failed", "expired")
    expect(page.get_by_role("main")).to_contain_text(text)
    if show == "nonsense":
        watch.forgive("status of 400")
