"""The playground, in a browser: real streams of a stand-in that misbehaves as its messages say."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.conftest import visit
from tests.server import Server, StandinProcess
from tests.standin import Fault

pytestmark = pytest.mark.slow

_ANSWER = "li.assistant p"


def stream(*pieces: str, tokens: int | None = None) -> Fault:
    """In several parts, over half a second."""
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    if tokens is not None:
        events.append({"choices": [], "usage": {"completion_tokens": tokens}})  # type: ignore[dict-item]
    body = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return Fault(
        body=body + "data: [DONE]\n\n",
        headers={"content-type": "text/event-stream"},
        ending="slow",
        delay_ms=1500,
    )


@pytest.fixture
def playground(page: Page) -> Page:
    page.goto("/playground")
    expect(page.get_by_label("Model")).to_have_value("stand-in")
    return page


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Control+Enter")


def test_answers_come_piece_by_piece_with_their_speed(playground: Page) -> None:
    playground.evaluate("""() => {
      window.seen = [];
      window.told = [];
      new MutationObserver((changes) => {
        const changed = changes.map((change) => change.target);
        const live = changed.filter((it) => it.matches('[role=status]'));
        window.told.push(...live.map((it) => it.textContent));
      }).observe(document.querySelector('.talk'), {childList: true, subtree: true});
      new MutationObserver(() => {
        const text = document.querySelector('li.assistant p')?.textContent;
        if (text && text !== window.seen.at(-1)) window.seen.push(text);
      }).observe(document.getElementById('turns'),
        {childList: true, subtree: true, characterData: true});
    }""")
    ask(playground, str(stream(*"Grüße, Welt!", tokens=12)))

    expect(playground.locator(_ANSWER)).to_have_text("Grüße, Welt!")
    expect(playground.get_by_role("status").filter(has_text="Grüße")).to_have_text("Grüße, Welt!")
    assert playground.evaluate("window.told") == ["Grüße, Welt!"]
    expect(playground.locator("#figures")).to_contain_text("12 tokens")
    expect(playground.locator("#figures")).to_contain_text("first token after")
    expect(playground.get_by_role("button", name="Stop")).to_be_hidden()
    seen: list[str] = playground.evaluate("window.seen")
    assert len(seen) > 3
    assert all(later.startswith(sooner) for sooner, later in pairwise(seen))


def test_a_conversation_goes_on_with_all_that_was_said(playground: Page) -> None:
    playground.get_by_label("System").fill("Be brief.")
    playground.get_by_label("Temperature").fill("0.5")
    ask(playground, str(stream("first")))
    expect(playground.locator(_ANSWER)).to_have_text("first")
    expect(playground.get_by_role("button", name="Send")).to_be_enabled()
    with playground.expect_request("**/v1/chat/completions") as asked:
        ask(playground, str(stream("second")))

    body = asked.value.post_data_json or {}
    assert [message["role"] for message in body["messages"]] == [
        *("system", "user", "assistant", "user"),
    ]
    assert (body["messages"][2]["content"], body["temperature"]) == ("first", 0.5)
    expect(playground.locator(_ANSWER)).to_have_text(["first", "second"])


def test_an_error_is_shown_and_the_next_try_works(playground: Page, watch: Any) -> None:
    ask(playground, str(Fault(status=400)) + "no")
    expect(playground.locator("li.assistant .error")).to_have_count(1)
    yes = str(stream("yes"))
    with playground.expect_request("**/v1/chat/completions") as asked:
        ask(playground, yes)

    expect(playground.locator(_ANSWER).last).to_have_text("yes")
    body = asked.value.post_data_json or {}
    assert body["messages"] == [{"role": "user", "content": yes}]
    watch.forgive("400")


def test_an_error_within_a_stream_keeps_what_came_and_says_so(playground: Page) -> None:
    broken = stream(*"abc")
    event = {"error": {"message": "The upstream broke off: it died"}}
    body = (broken.body or "").replace("[DONE]", json.dumps(event))
    ask(playground, str(msgspec.structs.replace(broken, body=body)))

    expect(playground.locator("li.assistant .error")).to_have_text(event["error"]["message"])
    expect(playground.locator("li.assistant p").first).to_have_text("abc")


def test_stop_ends_the_request(playground: Page, standin: StandinProcess) -> None:
    ask(playground, str(Fault(ending="lull")))
    expect(playground.locator(_ANSWER)).to_contain_text("la la")
    playground.get_by_role("button", name="Stop").click()

    expect(playground.get_by_text("Stopped.")).to_be_visible()
    expect(playground.get_by_role("button", name="Send")).to_be_enabled()


def test_a_new_conversation_takes_nothing_along_of_an_answer_that_was_coming(
    playground: Page,
) -> None:
    ask(playground, str(Fault(ending="lull")))
    expect(playground.locator(_ANSWER)).to_contain_text("la la")
    playground.get_by_role("button", name="New conversation").click()
    expect(playground.get_by_role("button", name="Send")).to_be_enabled()
    anew = str(stream("anew"))
    with playground.expect_request("**/v1/chat/completions") as asked:
        ask(playground, anew)

    body = asked.value.post_data_json or {}
    assert body["messages"] == [{"role": "user", "content": anew}]
    expect(playground.locator(_ANSWER)).to_have_text("anew")


def test_who_came_before_the_models_can_send_once_they_are_there(
    browser: Browser, tmp_path: Path
) -> None:
    standin = StandinProcess(tmp_path)
    with (
        Server(tmp_path, standin.url) as server,
        visit(browser, server.url) as (page, watch),
    ):
        page.goto("/playground")
        expect(page.locator("#models-problem")).to_be_visible()
        with standin:
            page.get_by_label("Your message").fill(str(stream("late")))
            while page.locator(_ANSWER).count() == 0:
                page.get_by_label("Your message").press("Control+Enter")
                page.wait_for_timeout(100)

            expect(page.locator(_ANSWER)).to_have_text("late")
            expect(page.locator("#models-problem")).to_be_hidden()
        watch.complaints.clear()  # of models that were not there yet


def test_what_a_model_writes_is_text(playground: Page) -> None:
    evil = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"
    ask(playground, str(stream(evil)))

    expect(playground.locator(_ANSWER)).to_have_text(evil)
    expect(playground).to_have_title("Playground · batch-api")
