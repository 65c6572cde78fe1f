"""Other systems' shapes, as their own curl lines ask; the stand-in answers a text reversed."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, StandinProcess
from tests.standin import MODEL, Fault, answer_to

KEY = "sk-of-the-dialect-tests"
REFUSED = Fault(status=400)
_SECONDS = "60"


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path_factory.mktemp("standin"), journal=False) as standin:
        yield standin


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, standin: StandinProcess) -> Iterator[Server]:
    folder, settings = tmp_path_factory.mktemp("dialects"), {"api_key": KEY}
    with Server(folder, standin.url, settings=settings) as server:
        yield server


def curl(server: Server, path: str, data: Any = None, *, key: str = KEY) -> tuple[int, Any]:
    """The status and the JSON."""
    command = ["curl", "--silent", "--max-time", _SECONDS, "-w", "\n%{http_code}"]
    command += ["-H", f"Authorization: Bearer {key}"]
    if data is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(data)]
    done = subprocess.run([*command, server.url + path], capture_output=True, check=True)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(body)


def query(chat_id: str, user_prompt: str, system_prompt: str = "Helpful") -> dict[str, str]:
    return {"chat_id": chat_id, "system_prompt": system_prompt, "user_prompt": user_prompt}


def test_a_chat_is_answered_under_its_id(server: Server) -> None:
    assert curl(server, "/chat", query("1", "What is 2+2?")) == (
        200,
        {"chat_id": "1", "response": answer_to("What is 2+2?")},
    )


def test_good_queries_of_a_batch_are_all_answered_in_order(server: Server) -> None:
    texts = [f"What is {n}+{n}?" for n in range(50)]

    status, answer = curl(
        server, "/chat/batched", {"queries": [query(str(n), it) for n, it in enumerate(texts)]}
    )

    assert status == 200
    assert answer["partial_success"] is False
    assert answer["responses"] == [
        {"chat_id": str(n), "response": answer_to(text)} for n, text in enumerate(texts)
    ]


def test_bad_queries_spoil_no_good_ones(server: Server) -> None:
    """An empty prompt, an empty id, a field too few, what is none, and what the model refuses."""
    queries = [
        query("1", "What is 2*3?"),
        query("", "What is 4+4?"),
        query("3", ""),
        {"chat_id": "4"},
        "nonsense",
        query("6", f"{REFUSED}no"),
        query("7", "What is 6/2?"),
    ]

    status, answer = curl(server, "/chat/batched", {"queries": queries})

    assert status == 200
    assert answer["partial_success"] is True
    responses = answer["responses"]
    assert [it["chat_id"] for it in responses] == ["1", "", "3", "4", "", "6", "7"]
    assert [it.get("response") for it in responses] == [
        answer_to("What is 2*3?"),
        *(None, None, None, None, None),
        answer_to("What is 6/2?"),
    ]
    assert "'chat_id'" in responses[1]["error"]
    assert "'user_prompt'" in responses[2]["error"]
    assert responses[3]["error"] == "Missing required parameter: 'user_prompt'."
    assert "expected an object" in responses[4]["error"]
    assert responses[5]["error"] == "as told: 400"


@pytest.mark.parametrize(
    ("path", "data", "param"),
    [
        ("/chat", {"chat_id": "1"}, "user_prompt"),
        ("/chat", {"user_prompt": "hi"}, "chat_id"),
        ("/chat/batched", {}, "queries"),
        ("/chat/batched", {"queries": []}, "queries"),
        ("/v1/generate", {}, "prompt"),
        ("/v1/batch-generate", {"prompts": [1]}, "prompts[0]"),
        ("/send_text", {"text": ""}, "text"),
        ("/generate", {"text": 5}, "text"),
    ],
)
def test_what_is_missing_is_named(
    server: Server, path: str, data: dict[str, Any], param: str
) -> None:
    status, answer = curl(server, path, data)

    assert (status, answer["error"]["param"]) == (400, param)


def test_nobody_gets_in_without_a_key(server: Server) -> None:
    for path, data in (
        ("/chat", query("1", "hi")),
        ("/chat/batched", {"queries": []}),
        ("/v1/generate", {"prompt": "hi"}),
        ("/v1/batch-generate", {"prompts": ["hi"]}),
        ("/send_text", {"text": "hi"}),
        ("/generate", {"text": "hi"}),
        ("/get_task_status/batch_1", None),
        ("/tasks/", None),
        ("/health_check", None),
    ):
        assert curl(server, path, data, key="wrong")[0] == 401, path


def test_a_prompt_is_answered_with_its_tokens(server: Server) -> None:
    assert curl(server, "/v1/generate", {"prompt": "one two", "max_tokens": 5}) == (
        200,
        {"text": "owt eno", "model": MODEL, "prompt_tokens": 2, "completion_tokens": 2},
    )


def test_prompts_are_answered_in_order_and_each_on_its_own(server: Server) -> None:
    prompts = ["abc", f"{REFUSED}no", "def"]

    status, answer = curl(server, "/v1/batch-generate", {"prompts": prompts})

    assert status == 200
    first, second, third = answer["results"]
    assert (first["text"], third["text"]) == ("cba", "fed")
    assert second == {"error": "as told: 400"}


def test_what_the_upstream_refuses_keeps_its_status(server: Server) -> None:
    status, answer = curl(server, "/chat", query("1", f"{Fault(status=404)}gone"))

    assert (status, answer["error"]["message"]) == (404, "as told: 404")
    status, answer = curl(server, "/chat", query("1", f"{Fault(ending='reset')}x"))
    assert (status, answer["error"]["code"]) == (502, "upstream_broke")


def test_who_is_too_busy_says_when_to_come_back(server: Server, standin: StandinProcess) -> None:
    busy = Fault(status=503, retry_after="7")

    command = ["curl", "--silent", "--include", "-H", f"Authorization: Bearer {KEY}"]
    command += ["-d", json.dumps(query("1", f"{busy}x")), f"{server.url}/chat"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)

    assert done.stdout.startswith("HTTP/1.1 503")
    assert "retry-after: 7" in done.stdout.lower()


def test_a_text_is_answered_at_once(server: Server) -> None:
    data = {"text": "abc", "model_name": MODEL, "dyn_batch": 1, "speculative_decoding": True}

    assert curl(server, "/generate", data) == (
        200,
        {"status": "finished", "result": "cba", "error": None},
    )
    assert curl(server, "/health_check") == (200, {"message": "Model healthy"})


@pytest.mark.slow
def test_a_task_survives_a_crash(tmp_path: Path, standin: StandinProcess) -> None:
    with Server(tmp_path, standin.url) as server:
        hangs = Fault(ending="hang", times=1)
        _, good = curl(server, "/send_text", {"text": f"{hangs}abc"})
        _, bad = curl(server, "/send_text", {"text": f"{REFUSED}no"})
        _, unknown = curl(server, "/send_text", {"text": "hi", "model_name": "nobody's"})
        assert until_over(server, bad["task_id"]) == {
            "status": "failed",
            "result": None,
            "error": "400 as told: 400",
        }
        assert "nobody's" in until_over(server, unknown["task_id"])["error"]
        assert task(server, good["task_id"])["status"] == "processing"
        server.kill()
        server.start()

        assert until_over(server, good["task_id"]) == {
            "status": "finished",
            "result": "cba",
            "error": None,
        }
        _, listed = curl(server, "/tasks/")
        assert listed["tasks"] == [it["task_id"] for it in (unknown, bad, good)]
        assert curl(server, "/get_task_status/batch_none")[0] == 404


def task(server: Server, id: str) -> dict[str, Any]:
    status, answer = curl(server, f"/get_task_status/{id}")
    assert status == 200
    return dict(answer)


def until_over(server: Server, id: str) -> dict[str, Any]:
    deadline = time.monotonic() + float(_SECONDS)
    while (answer := task(server, id))["status"] == "processing":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


PARTS = '{"choices": [{"message": {"content": [{"type": "text", "text": "abc"}]}}]}'


@pytest.mark.parametrize("body", [PARTS, '{"choices": [{}]}', '{"choices": [{"message": []}]}'])
def test_an_answer_without_a_text_fails_its_task(server: Server, body: str) -> None:
    _, made = curl(server, "/send_text", {"text": f"{Fault(body=body)}hi"})

    ended = until_over(server, made["task_id"])

    assert (ended["status"], ended["result"]) == ("failed", None)
    assert "no text" in ended["error"]


def test_a_task_whose_error_file_is_spoilt_has_failed(server: Server) -> None:
    _, made = curl(server, "/send_text", {"text": f"{REFUSED}no"})
    until_over(server, made["task_id"])
    _, batch = curl(server, f"/v1/batches/{made['task_id']}")
    (server.data_dir / "files" / batch["error_file_id"]).write_bytes(b'{"custom_id\xff\n')

    ended = task(server, made["task_id"])
    _, told = curl(server, f"/v1/batches/{made['task_id']}/lines")

    assert (ended["status"], ended["error"]) == ("failed", "The line can't be read.")
    assert [line["error"] for line in told["data"]] == [None]


@pytest.mark.parametrize(("metadata", "lines"), [({}, 1), ({"dialect": "task"}, 2)])
def test_a_batch_that_is_no_task_has_no_status_of_one(
    server: Server, metadata: dict[str, str], lines: int
) -> None:
    with server.client(key=KEY) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        content = "".join(json.dumps(request | {"custom_id": str(n)}) + "\n" for n in range(lines))
        file = client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=metadata,
        )
    deadline = time.monotonic() + float(_SECONDS)
    while curl(server, f"/v1/batches/{batch.id}")[1]["status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.05)

    status, answer = curl(server, f"/get_task_status/{batch.id}")

    assert (status, answer["error"]["code"]) == (404, "batch_not_found")


@pytest.mark.parametrize(
    "more",
    ['"usage": null, "model": null', '"usage": {"prompt_tokens": null, "completion_tokens": null}'],
)
def test_an_answer_that_tells_no_tokens_is_an_answer(server: Server, more: str) -> None:
    fault = Fault(body=f'{{"choices": [{{"message": {{"content": "abc"}}}}], {more}}}')

    assert curl(server, "/chat", query("1", f"{fault}hi"))[1]["response"] == "abc"
    status, told = curl(server, "/v1/generate", {"prompt": f"{fault}hi"})
    assert (status, told["text"]) == (200, "abc")
    assert told["prompt_tokens"] is told["completion_tokens"] is None


@pytest.mark.parametrize("status", [302, 307, 401, 403])
def test_what_an_upstream_wants_of_us_is_no_answer_for_a_client(
    server: Server, status: int
) -> None:
    text = f"{Fault(status=status, headers={'location': 'http://inside'})}hi"
    chat = {"model": MODEL, "messages": [{"role": "user", "content": text}]}

    for path, data in (("/v1/chat/completions", chat), ("/chat", query("1", text))):
        answered, told = curl(server, path, data)
        assert (answered, told["error"]["code"]) == (502, "upstream_broke"), path


def test_queries_that_name_their_models_need_no_list_of_models(
    tmp_path: Path, standin: StandinProcess
) -> None:
    with Server(tmp_path, standin.url) as server:
        before = standin.stats().models
        queries = [query(str(n), "hi") | {"model": MODEL} for n in range(2)]

        status, answer = curl(server, "/chat/batched", {"queries": queries})

        assert (status, answer["partial_success"]) == (200, False)
        assert standin.stats().models == before


def test_each_of_many_queries_is_a_request_of_the_minute(
    tmp_path: Path, standin: StandinProcess
) -> None:
    settings = {"max_requests_per_minute": 5}
    with Server(tmp_path, standin.url, settings=settings) as server:
        queries = {"queries": [query(str(n), "hi") for n in range(3)]}
        before = standin.stats().received

        assert curl(server, "/chat/batched", queries)[0] == 200
        status, refused = curl(server, "/chat/batched", queries)
        assert (status, refused["error"]["code"]) == (429, "rate_limit_exceeded")
        status, refused = curl(server, "/v1/batch-generate", {"prompts": ["a"] * 6})
        assert status == 429
        assert standin.stats().received == before + 3


@pytest.mark.parametrize("path", ["/chat/batched", "/v1/batch-generate"])
def test_many_queries_leave_places_to_others_and_keep_only_so_many_bytes(
    tmp_path: Path, path: str
) -> None:
    with (
        StandinProcess(tmp_path, journal=False, delay_ms=50) as standin,
        Server(
            tmp_path, standin.url, settings={"max_in_flight": 8, "max_answer_bytes": 4000}
        ) as server,
    ):
        texts = [f"{n:01000}" for n in range(10)]
        data = {
            "queries": [query(str(n), text) for n, text in enumerate(texts)],
            "prompts": texts,
        }

        status, answer = curl(server, path, data)

        assert status == 200
        results = answer.get("responses") or answer["results"]
        errors = [it["error"] for it in results if it.get("error")]
        assert len(errors) == 6
        assert all("together" in error for error in errors)
        assert standin.stats().most_open <= 2
