"""The whole product as a user meets it: `batch-api serve`, a real worker, the real SDK."""

import json
import signal
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from openai import OpenAI
from openai.types import Batch, Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tests.server import Server

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
ENDPOINT: Endpoint = "/v1/chat/completions"
QUESTIONS = 200

_HELD_OUT = Path(__file__).parent / "data" / "held_out_questions.jsonl"
_POLL_SECONDS = 0.1
_IN_FLIGHT, _RUNNING = 128, 64  # lines that are sent to a worker, and that it runs at once
_START_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("end_to_end")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with server.client(max_retries=20) as client:
        yield client


@pytest.mark.slow
def test_an_ordinary_start_gives_no_warning_though_a_batch_waits_for_the_model(
    server: Server, client: OpenAI
) -> None:
    _run(client, [_line("first", "What is 2+2?")])

    log = (server.data_dir.parent / "server.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["level"] for line in lines} == {"INFO"}, log
    assert "upstream is up" in {line["message"] for line in lines}


def test_every_question_of_a_batch_gets_its_answer(client: OpenAI) -> None:
    questions = _questions(QUESTIONS)
    lines = [_line(f"q-{n}", question["question"]) for n, question in enumerate(questions)]
    bad = _line("bad", "What is 2+2?", temperature=9)

    batch = _run(client, [*lines[:100], bad, *lines[100:]])

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 201, "completed": 200, "failed": 1}
    answered = _content(client, batch.output_file_id)
    assert [line["custom_id"] for line in answered] == [line["custom_id"] for line in lines]
    wrong = {
        question["question"]: _answer(line)
        for question, line in zip(questions, answered, strict=True)
        if _answer(line) != question["answer"]
    }
    assert not wrong
    _check_usage(batch, answered)
    (failed,) = _content(client, batch.error_file_id)
    assert failed["custom_id"] == "bad"
    assert failed["error"] is None
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["param"] == "temperature"
    assert failed["response"]["body"]["error"]["code"] == "decimal_above_max_value"


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _answering(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "d", "schema": schema}}
    return {"response_format": form}


_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
_LINK = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}


def _asked(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


TOO_MUCH: dict[str, tuple[dict[str, Any], str | None]] = {
    "answers": ({"n": 10_000}, "n"),
    "tokens": ({"max_tokens": 1_000_000_000}, "messages"),
    "countless tokens": ({"max_tokens": 10**30}, "messages"),
    "heat": ({"temperature": 9}, "temperature"),
    "logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "stops": ({"stop": ["a"] * 5}, "stop"),
    "a long stop": ({"stop": ["a" * 1_001]}, "stop[0]"),
    "biases": ({"logit_bias": {str(token): 1 for token in range(1_025)}}, "logit_bias"),
    "a long pattern": ({"guided_regex": "(a|b){1,9}" * 1_000}, "guided_regex"),
    "a deep schema": (_answering(_nested(50)), "response_format"),
    "a bottomless schema": (_answering(_nested(200)), None),
    "a wide schema": (
        _answering({"enum": ["x" * 100 + str(n) for n in range(2_000)]}),
        "response_format",
    ),
    "choices": ({"guided_choice": ["a"] * 1_025}, "guided_choice"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools"),
    "messages": ({"messages": [{"role": "user", "content": "a"}] * 4_097}, "messages"),
    "a long text": (_asked({"type": "text", "text": "a " * 200_000}), "messages"),
    "a template": ({"chat_template": "{% for _ in range(10**9) %}{% endfor %}"}, "chat_template"),
    "its variables": (
        {"chat_template_kwargs": {"messages": "x"}},
        "chat_template_kwargs.messages",
    ),
    "an image": (_asked(_IMAGE), "messages[0].content[0].type"),
    "a link": (_asked(_LINK), "messages[0].content[0].image_url.url"),
    "labels": ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
}
"""What makes a request too costly, and the parameter that the error names."""


def test_each_line_that_asks_for_too_much_is_an_error_and_the_others_are_answered(
    client: OpenAI,
) -> None:
    good = [_line(f"good-{n}", f"What is {n}+{n}?", temperature=0) for n in range(3)]
    bad = [_line(what, "What is 2+2?", **asked) for what, (asked, _) in TOO_MUCH.items()]

    batch = _run(client, [good[0], *bad, *good[1:]])

    errors = _content(client, batch.error_file_id)
    assert {line["custom_id"]: _refusal(line["response"]) for line in errors} == {
        what: (400, param) for what, (_, param) in TOO_MUCH.items()
    }
    answered = _content(client, batch.output_file_id)
    assert [_answer(line) for line in answered] == ["0", "2", "4"]


def _refusal(response: dict[str, Any]) -> tuple[int, str | None]:
    return response["status_code"], response["body"]["error"]["param"]


def test_a_single_request_that_asks_for_too_much_is_refused_alike(server: Server) -> None:
    for what, (asked, param) in TOO_MUCH.items():
        body = json.dumps(_line(what, "What is 2+2?", **asked)["body"]).encode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.fetch(ENDPOINT, method="POST", body=body)
        with refused.value as answer:
            assert (answer.status, json.load(answer)["error"]["param"]) == (400, param), what


@pytest.mark.slow
def test_a_chat_request_is_answered_while_a_batch_runs_and_ahead_of_its_lines(
    client: OpenAI,
) -> None:
    # They end one after the other, wherever the model would: no step ends many at once.
    lines = [
        _line(f"count-{n}", f"Count to {n}.", ignore_eos=True, max_tokens=40 + n * 7 % 100)
        for n in range(500)
    ]
    batch = _wait_for_some_done(client, _start(client, lines))
    before = _done(client.batches.retrieve(batch.id))

    completion = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "What is 2+2?"}], temperature=0
    )

    assert completion.choices[0].message.content == "4"
    after = client.batches.retrieve(batch.id)
    assert after.status == "in_progress"
    assert _done(after) - before < (_IN_FLIGHT - _RUNNING) / 2
    client.batches.cancel(batch.id)
    assert _wait_for(client, batch, "cancelled").status == "cancelled"


def test_a_batch_of_completions_is_answered(client: OpenAI) -> None:
    bodies = [
        {"model": "demo", "prompt": f"<|user|>What is {n}+1?<|end|><|assistant|>", "temperature": 0}
        for n in range(10)
    ]

    answered = _run_bodies(client, "/v1/completions", bodies)

    completions = [Completion.model_validate(body) for body in answered]
    assert [each.choices[0].text for each in completions] == [str(n + 1) for n in range(10)]


def test_a_batch_of_responses_is_answered(client: OpenAI) -> None:
    bodies = [{"model": "demo", "input": f"What is {n}+1?", "temperature": 0} for n in range(10)]

    answered = _run_bodies(client, "/v1/responses", bodies)

    responses = [Response.model_validate(body) for body in answered]
    assert [each.output_text for each in responses] == [str(n + 1) for n in range(10)]
    assert {each.status for each in responses} == {"completed"}


def test_a_batch_of_chats_with_a_schema_is_answered_by_it(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
        "required": ["verdict", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "v", "schema": schema, "strict": True}}
    bodies = [
        _line("", f"Is {n} good?", response_format=form, temperature=1)["body"] for n in range(10)
    ]

    for body in _run_bodies(client, ENDPOINT, bodies):
        (choice,) = ChatCompletion.model_validate(body).choices
        verdict = json.loads(choice.message.content or "")
        assert verdict["verdict"] in ("good", "bad")
        assert verdict["sure"] in (True, False)
        assert len(verdict) == 2


def test_an_answer_is_streamed_token_by_token(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Count to 12."}],
        temperature=0,
        stream=True,
    )

    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]

    assert len([piece for piece in pieces if piece]) > 5
    assert "".join(piece or "" for piece in pieces) == ", ".join(map(str, range(1, 13)))


def test_the_model_is_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_requests_and_chats_are_answered(
    server: Server, client: OpenAI
) -> None:
    lines = [_line(f"count-{n}", "Count to 60.", max_tokens=60) for n in range(150)]
    batch = _start(client, lines)
    killed = _worker(server)
    done = _done(_wait_for_some_done(client, batch))

    killed.kill()
    completion = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "What is 2+2?"}], temperature=0
    )

    assert completion.choices[0].message.content == "4"
    assert 0 < done < 150
    batch = _wait_for(client, batch, "completed")
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 150, "completed": 150, "failed": 0}
    assert _worker(server).pid != killed.pid
    counted = ", ".join(map(str, range(1, 61)))
    (answer,) = {_answer(line) for line in _content(client, batch.output_file_id)}
    assert answer is not None
    assert counted.startswith(answer)
    assert len(answer) > 20


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_worker_ends_with_the_server(tmp_path: Path, end: signal.Signals) -> None:
    with Server(tmp_path) as server:
        _worker(server)
        started = psutil.Process(server.pid).children(recursive=True)
        psutil.Process(server.pid).send_signal(end)
        gone, alive = psutil.wait_procs(started, timeout=30)

    assert gone
    assert not alive


def _worker(server: Server) -> psutil.Process:
    deadline = time.monotonic() + _START_SECONDS
    while not (children := psutil.Process(server.pid).children()):
        assert time.monotonic() < deadline, "no worker was started"
        time.sleep(_POLL_SECONDS)
    return children[0]


def _questions(count: int) -> list[dict[str, str]]:
    """Of every kind, spread evenly over the file."""
    questions = [json.loads(line) for line in _HELD_OUT.read_text().split("\n") if line]
    assert len(questions) >= count
    return [questions[n * len(questions) // count] for n in range(count)]


def _line(custom_id: str, question: str, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    body = {"model": "demo", "messages": messages, "temperature": 0} | options
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def _upload(client: OpenAI, lines: list[dict[str, Any]]) -> str:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return client.files.create(file=("questions.jsonl", content), purpose="batch").id


def _run_bodies(
    client: OpenAI, endpoint: Endpoint, bodies: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The answers' bodies, in order; all must have succeeded."""
    lines = [
        {"custom_id": f"r-{n}", "method": "POST", "url": endpoint, "body": body}
        for n, body in enumerate(bodies)
    ]
    batch = _wait_for(client, _start(client, lines, endpoint), "completed")
    assert batch.error_file_id is None
    assert batch.usage is not None
    assert batch.usage.output_tokens > 0
    return [line["response"]["body"] for line in _content(client, batch.output_file_id)]


def _run(client: OpenAI, lines: list[dict[str, Any]]) -> Batch:
    batch = _start(client, lines)
    assert batch.status == "validating"
    return _wait_for(client, batch, "completed")


def _start(client: OpenAI, lines: list[dict[str, Any]], endpoint: Endpoint = ENDPOINT) -> Batch:
    return client.batches.create(
        input_file_id=_upload(client, lines), endpoint=endpoint, completion_window="24h"
    )


def _done(batch: Batch) -> int:
    return batch.request_counts.completed if batch.request_counts else 0


def _wait_for_some_done(client: OpenAI, batch: Batch) -> Batch:
    """From here on the worker is full."""
    while not _done(batch):
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
        assert batch.status in ("validating", "in_progress"), batch.to_json()
    return batch


def _wait_for(client: OpenAI, batch: Batch, status: str) -> Batch:
    while batch.status not in (status, "failed", "completed", "expired", "cancelled"):
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == status, batch.to_json()
    return batch


def _content(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).content.splitlines()]


def _answer(line: dict[str, Any]) -> str | None:
    completion = ChatCompletion.model_validate(line["response"]["body"])
    return completion.choices[0].message.content


def _check_usage(batch: Batch, answered: list[dict[str, Any]]) -> None:
    assert batch.usage is not None
    usages = [line["response"]["body"]["usage"] for line in answered]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
