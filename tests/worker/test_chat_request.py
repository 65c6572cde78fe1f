"""Bad bodies: what the worker refuses, and in which words."""

import asyncio
import json
import time
from io import BytesIO
from typing import Any

import pytest

from tests.worker.serving import Worker, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TOO_MANY = "object_above_max_properties"
USER = {"role": "user", "content": "say hi"}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [USER] * 4097}, "messages", "array_above_max_length"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 4097}]},
            "messages[0].content",
            "array_above_max_length",
        ),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{**USER, "role": "king"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{**USER, "content": 3}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "text"}]}]},
            "messages[1].content[0].text",
            "missing_required_parameter",
        ),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "decimal_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 10_000}, "n", "integer_above_max_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "decimal_above_max_value"),
        ({"presence_penalty": -2.1}, "presence_penalty", "decimal_below_min_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value"),
        ({"logit_bias": {"one": 1}}, "logit_bias.one", "invalid_value"),
        ({"logit_bias": {"1114112": 1}}, "logit_bias.1114112", "invalid_value"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias", _TOO_MANY),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_k": -2}, "top_k", "integer_below_min_value"),
        ({"min_p": 1.5}, "min_p", "decimal_above_max_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "decimal_below_min_value"),
        ({"max_tokens": 2, "min_tokens": 3}, "min_tokens", "integer_above_max_value"),
        ({"stop_token_ids": list(range(65))}, "stop_token_ids", "array_above_max_length"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "invalid_value",
        ),
        ({"guided_regex": "a" * 5000}, "guided_regex", "string_above_max_length"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "invalid_value"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs.a", "invalid_type"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": [""]}, "stop[0]", "string_below_min_length"),
        ({"stop": "x" * 2000}, "stop", "string_above_max_length"),
        ({"stop": 7}, "stop", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ],
)
async def test_a_bad_value_is_400_and_named(
    worker: Worker, change: dict[str, Any], param: str, code: str
) -> None:
    status, body = await worker.post(json.dumps(chat("say hi") | change).encode())

    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert (body["error"]["param"], body["error"]["code"]) == (param, code)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"chat_template": "{{ 7 * 7 }}"}, "chat_template"),
        ({"guided_grammar": "start: x"}, "guided_grammar"),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs.grammar"),
        ({"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs.messages"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
                        ],
                    }
                ]
            },
            "messages[0].content[0].type",
        ),
    ],
)
async def test_what_can_t_be_done_is_refused_by_name(
    worker: Worker, change: dict[str, Any], param: str
) -> None:
    status, body = await worker.post(json.dumps(chat("say hi") | change).encode())

    assert status == 400
    assert (body["error"]["param"], body["error"]["code"]) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    "value", [{"n": 1}, {"tools": []}, {"presence_penalty": 0.0}, {"stop": []}]
)
async def test_a_value_that_asks_for_nothing_is_accepted(
    worker: Worker, value: dict[str, Any]
) -> None:
    status, _ = await worker.post(json.dumps(chat("say hi") | value).encode())

    assert status == 200


def _with(value: bytes) -> bytes:
    return json.dumps(chat("say hi"))[:-1].encode() + b', "max_tokens": ' + value + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        _with(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        _with(b"NaN"),
        _with(b"1e999"),
        _with(b"9" * 5000),
        json.dumps(chat("say \ud800")).encode(),
    ],
    ids=lambda body: body[:12].decode(errors="replace") + f"…{len(body)}",
)
async def test_a_body_that_is_hardly_json_is_400(worker: Worker, body: bytes) -> None:
    status, answer = await worker.post(body)

    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
@pytest.mark.alone  # it compares how long two things take
async def test_a_body_of_very_many_parts_does_not_hold_up_the_others(worker: Worker) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": ""}] * 4000}
    body = BytesIO(json.dumps(chat("say hi") | {"messages": [message] * 40}).encode())
    slowest, at = 0.0, time.perf_counter()

    reading = asyncio.create_task(worker.post(body))
    while not reading.done():
        begun = time.perf_counter()
        await asyncio.sleep(0.01)
        slowest = max(slowest, time.perf_counter() - begun)

    _, answer = await reading
    assert answer["error"]["code"] == "context_length_exceeded"
    assert slowest < (time.perf_counter() - at) / 2


async def test_a_nul_a_line_separator_and_an_emoji_are_text_like_any_other(worker: Worker) -> None:
    status, answer = await worker.post(json.dumps(chat("say a\0\u2028\U0001f642")).encode())

    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "a\0\u2028\U0001f642"


async def test_a_body_is_json_whatever_its_content_type_says(worker: Worker) -> None:
    async with worker.session.post(
        "/v1/chat/completions",
        data=json.dumps(chat("say hi")),
        headers={"content-type": "application/x-www-form-urlencoded"},
    ) as answer:
        assert answer.status == 200
