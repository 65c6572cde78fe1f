import json
from typing import Any

import pytest

from batch_api.schemas.lines import (
    InputLine,
    LineRules,
    Problem,
    answered_line,
    unanswered_line,
)

CHAT = "/v1/chat/completions"
RULES = LineRules(CHAT, frozenset({"m", "org/n"}))
GOOD: dict[str, Any] = {
    "custom_id": "row-1",
    "method": "POST",
    "url": CHAT,
    "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
}


def line(**changes: Any) -> bytes:
    """A good line with some fields changed, or left out where the change is None."""
    fields = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return json.dumps(fields).encode()


def body(**changes: Any) -> dict[str, Any]:
    fields = GOOD["body"] | changes
    return {name: value for name, value in fields.items() if value is not None}


def raw_line(body: bytes) -> bytes:
    head = b'{"custom_id": "row-1", "method": "POST", "url": "/v1/chat/completions", "body": '
    return head + body + b"}\n"


def problems(raw: bytes, rules: LineRules = RULES) -> list[Problem]:
    read = rules.read(raw, 7)
    assert isinstance(read, list), read
    return read


def read(raw: bytes, rules: LineRules = RULES) -> InputLine:
    read = rules.read(raw, 7)
    assert isinstance(read, InputLine), read
    return read


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"nonsense\n", "invalid_json_line", None),
        (b"[]\n", "invalid_json_line", None),
        (b"null\n", "invalid_json_line", None),
        (b'"row-1"\n', "invalid_json_line", None),
        (line() + line(), "invalid_json_line", None),
        (line()[:-1], "invalid_json_line", None),
        (line(custom_id=None), "missing_required_parameter", "custom_id"),
        (line(method=None), "missing_required_parameter", "method"),
        (line(url=None), "missing_required_parameter", "url"),
        (line(body=None), "missing_required_parameter", "body"),
        (line(custom_id=1), "invalid_type", "custom_id"),
        (line(custom_id=""), "invalid_value", "custom_id"),
        (line(custom_id="x" * 513), "string_above_max_length", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(method="post"), "invalid_method", "method"),
        (line(method=["POST"]), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "invalid_url", "url"),
        (line(url=CHAT + "/"), "invalid_url", "url"),
        (line(url=1), "invalid_url", "url"),
        (line(body="{}"), "invalid_type", "body"),
        (line(body=[]), "invalid_type", "body"),
        (line(body=body(model=None)), "invalid_request", "body.model"),
        (line(body=body(model=1)), "invalid_request", "body.model"),
        (line(body=body(model="other")), "model_not_found", "body.model"),
        (line(body=body(messages=None)), "invalid_request", "body.messages"),
        (line(body=body(messages="hi")), "invalid_request", "body.messages"),
        (line(body=body(stream=True)), "streaming_unsupported", "body.stream"),
        (raw_line(b'{"model": "m", "messages": null}'), "invalid_request", "body.messages"),
    ],
)
def test_a_problem_has_its_code_its_param_and_its_line(
    raw: bytes, code: str, param: str | None
) -> None:
    (problem,) = problems(raw)

    assert (problem.code, problem.param, problem.line) == (code, param, 7)
    assert problem.message
    assert set(problem.as_json()) == {"code", "message", "param", "line"}


def test_every_problem_of_a_line_is_told() -> None:
    raw = line(custom_id="", method="GET", url="/", body={"stream": True})

    assert [(problem.code, problem.param) for problem in problems(raw)] == [
        ("invalid_value", "custom_id"),
        ("invalid_method", "method"),
        ("invalid_url", "url"),
        ("invalid_request", "body.model"),
        ("invalid_request", "body.messages"),
        ("streaming_unsupported", "body.stream"),
    ]
    assert [problem.param for problem in problems(b"{}")] == ["custom_id", "method", "url", "body"]


@pytest.mark.parametrize(
    "raw",
    [
        line(),
        line(custom_id="x" * 512),
        line(custom_id="<script>__proto__'; DROP TABLE batches --\x00😀\u2028"),
        line(body=body(model="org/n")),
        line(body=body(stream=False)),
        raw_line(b'{"model": "m", "messages": [], "stream": null}'),
        line(extra={"field": 1}),
        b"  " + line() + b" \r\n",
    ],
)
def test_what_is_odd_but_valid_is_accepted(raw: bytes) -> None:
    assert read(raw)


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [("/v1/embeddings", "input"), ("/v1/responses", "input"), ("/v1/moderations", "input")],
)
def test_each_endpoint_asks_for_its_own_field(endpoint: str, field: str) -> None:
    rules = LineRules(endpoint, None)
    with_it = line(url=endpoint, body={"model": "m", field: "text"})

    assert read(with_it, rules)
    (problem,) = problems(line(url=endpoint, body={"model": "m"}), rules)
    assert problem.param == f"body.{field}"


def test_a_completion_may_go_without_a_prompt() -> None:
    raw = line(url="/v1/completions", body={"model": "m"})

    assert read(raw, LineRules("/v1/completions", None))


def test_any_model_will_do_where_none_is_known() -> None:
    assert read(line(body=body(model="whatever")), LineRules(CHAT, None))


def test_an_unknown_model_is_told_which_there_are() -> None:
    (problem,) = problems(line(body=body(model="gpt")))

    assert "'gpt'" in problem.message
    assert "m, org/n" in problem.message


@pytest.mark.parametrize(
    "inner",
    [
        b'{ "model" : "m",\t"messages" : [ ] , "seed" : 123456789012345678901234567890 }',
        b'{"model":"m","messages":[],"x":' + b"9" * 5_000 + b"}",
        b'{"model":"m","messages":[],"x":1e999}',
        b'{"model":"m","messages":[],"x":0.1000000000000000055511151231257827}',
        '{"model":"m","messages":["\u2028\u0085ü😀"]}'.encode(),
        b'{"model":"m","messages":["\\u2028\\u0000\\ud83d\\ude00"],"messages":[]}',
    ],
)
def test_a_body_is_kept_byte_for_byte(inner: bytes) -> None:
    assert read(raw_line(inner)).body == inner


@pytest.mark.parametrize(
    "inner",
    [
        b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","messages":[' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}",
        b'{"model":"m","messages":[],"x":NaN}',
        b'{"model":"m","messages":[],"x":-Infinity}',
        b'{"model":"m","messages":["\\ud800"]}',
        b'{"model":"m","messages":["\xff"]}',
        b'{"model":"m","messages":["\xed\xa0\x80"]}',
        b'{"model":"m","messages":["\x00"]}',
        b'{"model":"m","messages":["a\nb"]}',
    ],
    ids=["arrays", "objects", "nan", "infinity", "surrogate", "ff", "utf8-surrogate", "nul", "lf"],
)
def test_what_is_not_json_is_refused_wherever_it_stands(inner: bytes) -> None:
    (problem,) = problems(raw_line(inner))

    assert (problem.code, problem.line) == ("invalid_json_line", 7)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_another_encoding_is_refused(encoding: str) -> None:
    (problem,) = problems(line().decode().encode(encoding))

    assert problem.code == "invalid_json_line"


def test_an_answered_line_keeps_the_answer_and_is_one_line() -> None:
    answer = b'{\r\n  "seed": 123456789012345678901234567890,\n  "text": "a\\nb"\n}\n'

    written = answered_line(
        id="batch_req_1", custom_id="rów\n1", status=200, request_id="req_1", body=answer
    )

    assert written.endswith(b"}\n")
    assert written.count(b"\n") == 1
    assert b"123456789012345678901234567890" in written
    assert json.loads(written) == {
        "id": "batch_req_1",
        "custom_id": "rów\n1",
        "response": {"status_code": 200, "request_id": "req_1", "body": json.loads(answer)},
        "error": None,
    }


def test_to_a_client_that_splits_lines_as_python_does_a_line_is_one_line() -> None:
    odd = "".join(map(chr, [*range(1, 0x100), 0x2028, 0x2029]))
    body = json.dumps({"text": odd}, ensure_ascii=False).encode()

    answered = answered_line(id="i", custom_id=odd, status=200, request_id="r", body=body)
    unanswered = unanswered_line(id="i", custom_id=odd, code="c", message=odd)

    assert len(answered.decode().splitlines()) == len(unanswered.decode().splitlines()) == 1
    read = json.loads(answered)
    assert (read["custom_id"], read["response"]["body"]["text"]) == (odd, odd)
    assert json.loads(unanswered)["error"]["message"] == odd


def test_an_unanswered_line_says_why() -> None:
    written = unanswered_line(
        id="batch_req_1", custom_id="1", code="batch_expired", message="too\nlate"
    )

    assert written.count(b"\n") == 1
    assert json.loads(written) == {
        "id": "batch_req_1",
        "custom_id": "1",
        "response": None,
        "error": {"code": "batch_expired", "message": "too\nlate"},
    }


def test_several_models_are_allowed_unless_the_rules_say_otherwise() -> None:
    rules = LineRules(CHAT, None)

    assert read(line(body=body(model="m")), rules)
    assert read(line(body=body(model="other")), rules)


def test_a_line_for_another_model_than_the_first_is_told_so_where_one_is_the_rule() -> None:
    rules = LineRules(CHAT, None, is_one_model=True)

    assert read(line(body=body(model="m")), rules)
    (problem,) = problems(line(body=body(model="other")), rules)
    assert read(line(body=body(model="m")), rules)

    assert (problem.code, problem.param, problem.line) == ("mismatched_model", "body.model", 7)
    assert "'m'" in problem.message


@pytest.mark.parametrize("field", ["custom_id", "method", "url", "body"])
def test_a_null_is_a_missing_field(field: str) -> None:
    (problem,) = problems(json.dumps(GOOD | {field: None}).encode())

    assert (problem.code, problem.param) == ("missing_required_parameter", field)


@pytest.mark.parametrize(
    ("url", "field", "right", "wrong"),
    [
        (CHAT, "messages", [], "hi"),
        ("/v1/embeddings", "input", "hi", {"text": "hi"}),
        ("/v1/embeddings", "input", ["hi"], 5),
        ("/v1/images/generations", "prompt", "a duck", True),
    ],
)
def test_a_field_that_a_body_needs_must_have_its_type(
    url: str, field: str, right: object, wrong: object
) -> None:
    rules = LineRules(url, None)

    assert read(line(url=url, body={"model": "m", field: right}), rules)
    (problem,) = problems(line(url=url, body={"model": "m", field: wrong}), rules)

    assert (problem.code, problem.param) == ("invalid_request", f"body.{field}")
