"""Odd input on its whole way: from the upload to the socket of the upstream, or to its error."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types import Batch

from batch_api.settings import Settings
from tests.api.upstream import ScriptedUpstream
from tests.contract.conftest import CHAT, Live, jsonl, request
from tests.standin import MODEL

ODD = "<script>alert(1)</script>'; DROP TABLE batches; --\u2028\u0085\0__proto__"
BEGUN = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "hi"}}], "x": '.encode()


def line(body: bytes, custom_id: bytes = b'"odd"') -> bytes:
    head = (
        b'{"custom_id": %s, "method": "POST", "url": "/v1/chat/completions", "body": ' % custom_id
    )
    return head + body + b"}\n"


def codes(batch: Batch) -> list[tuple[str | None, int | None]]:
    assert batch.errors is not None
    return [(error.code, error.line) for error in batch.errors.data or ()]


NO_JSON = {
    "arrays": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "open": b"[" * 100_000,
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "a half surrogate": b'"\\ud800"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "nul": b'"\0"',
    "latin-1": b'"\xff"',
    "a comment": b"1 /* one */",
    "a hexadecimal number": b"0x1",
    "single quotes": b"'a'",
}


async def test_a_line_that_is_not_json_fails_its_batch_and_no_other(live: Live) -> None:
    good = jsonl([request("a"), request("b")])
    starting = [live.start(good + line(BEGUN + odd + b"}")) for odd in NO_JSON.values()]

    batches = [await live.finish(batch) for batch in await asyncio.gather(*starting)]

    found = {name: codes(batch) for name, batch in zip(NO_JSON, batches, strict=True)}
    assert found == {name: [("invalid_json_line", 3)] for name in NO_JSON}
    assert (await live.run(good)).status == "completed"


async def test_of_a_file_full_of_nonsense_100_lines_are_told(live: Live) -> None:
    batch = await live.run(jsonl([request("a")]) + b"nonsense\n" * 1_000)

    assert batch.status == "failed"
    assert codes(batch) == [("invalid_json_line", number) for number in range(2, 102)]


@pytest.mark.parametrize(
    "custom_id",
    [b'""', b"5", b"null", b'"%s"' % (b"x" * 513), b"{}", b'["odd"]', b'{"__proto__": {}}'],
    ids=lambda value: value[:20].decode(),
)
async def test_a_custom_id_that_is_none_fails_the_batch(live: Live, custom_id: bytes) -> None:
    batch = await live.run(line(BEGUN + b"1}", custom_id))

    assert batch.status == "failed"
    assert codes(batch)[0][1] == 1


class TestLongLines:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_line_bytes": 10_000})

    async def test_a_line_over_the_limit_fails_the_batch(self, live: Live) -> None:
        batch = await live.run(jsonl([request("a"), request("b", "x" * 10_000), request("c")]))

        assert codes(batch) == [("line_too_long", 2)]


async def test_what_looks_like_code_stays_text_from_the_input_to_the_output(live: Live) -> None:
    metadata = {"__proto__": ODD, "constructor": "<b>"}
    name = '<img src=x onerror=alert(1)>\r\n"; DROP TABLE files.jsonl'
    file = await live.client.files.create(
        file=(name, jsonl([request(ODD, ODD.split("\0")[0])])), purpose="batch"
    )
    batch = await live.client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata=metadata
    )

    batch = await live.finish(batch)

    (answered,) = await live.lines(batch.output_file_id)
    assert answered["custom_id"] == ODD
    answer = answered["response"]["body"]["choices"][0]["message"]["content"]
    assert answer == ODD.split("\0")[0][::-1]
    assert batch.metadata == metadata
    assert [each.metadata async for each in live.client.batches.list()] == [metadata]


async def test_an_output_is_downloaded_and_never_shown(live: Live) -> None:
    batch = await live.run([request("a", "<script>alert(1)</script>")])
    assert batch.output_file_id is not None

    content = await live.client.files.content(batch.output_file_id)

    headers = content.response.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment; ")
    assert b"<script>" in content.content or b">tpircs/<" in content.content


def image(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


LINKS = [
    "http://169.254.169.254/latest/meta-data",
    "http://localhost:5000/v1/files",
    "file:///etc/passwd",
    "https://images.example.com/a.png",
]


async def test_a_line_with_a_link_is_an_error_line_and_no_upstream_sees_it(live: Live) -> None:
    lines = [request(link, messages=image(link)) for link in LINKS]

    batch = await live.run([request("a"), *lines, request("b", chat_template="{{ 7 * 7 }}")])

    assert batch.status == "completed"
    assert live.standin.stats.received == 1
    errors = {line["custom_id"]: line["response"] for line in await live.lines(batch.error_file_id)}
    assert list(errors) == [*LINKS, "b"]
    for link in LINKS:
        response = errors[link]
        assert response["status_code"] == 400
        assert response["request_id"]
        assert response["body"]["error"]["code"] == "link_not_allowed"
        assert response["body"]["error"]["param"] == "messages[0].content[0].image_url.url"
    assert errors["b"]["body"]["error"]["param"] == "chat_template"


async def test_a_chat_with_a_link_is_refused_and_no_upstream_sees_it(live: Live) -> None:
    for link in LINKS:
        with pytest.raises(openai.BadRequestError) as refused:
            await live.client.chat.completions.create(model=MODEL, messages=image(link))  # type: ignore[arg-type]
        assert refused.value.code == "link_not_allowed"
    with pytest.raises(openai.BadRequestError) as refused:
        await live.client.chat.completions.create(
            model=MODEL, messages=[], extra_body={"chat_template": "{{ 7 * 7 }}"}
        )

    assert refused.value.code == "unsupported_parameter"
    assert live.standin.stats.received == 0


BODIES = [
    b'{ "model" : "m",\t"messages" : [ ] , "seed" : 123456789012345678901234567890 }',
    b'{"model":"m","messages":[],"temperature":0.1000000000000000055511151231257827,"z":1,"a":2}',
    b'{"messages":[],"model":"m","messages":[],"x":1e999,"x":-0.0,"":{}}',
    b'{"model":"m","messages":[],"x":' + b"9" * 5_000 + b"}",
    rb'{"m\u006fdel":"m","messages":[],"x":"\u0000\ud83d\ude00\/\u003cscript>"}',
    '{"model":"m","messages":["\u2028\u0085\ufeffü😀"]}'.encode(),
    b'{"model":"m","messages":[],"x":' + b"[" * 400 + b"]" * 400 + b"}",
    b'{"model":"m","messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AA=="}}]}]}',
]


class TestWithAnUpstreamThatListens:
    @pytest.fixture
    async def upstream(self) -> AsyncIterator[ScriptedUpstream]:
        upstream = ScriptedUpstream(models=["m"])
        upstream.answer(b'{"choices": []}')
        yield upstream
        await upstream.stop()

    @pytest.fixture
    async def upstream_url(self, upstream: ScriptedUpstream) -> str:
        return await upstream.start()

    async def test_bodies_reach_its_socket_byte_for_byte(
        self, live: Live, upstream: ScriptedUpstream
    ) -> None:
        lines = [line(body, b'"%d"' % number) for number, body in enumerate(BODIES)]

        batch = await live.run(b"".join(lines))

        assert batch.status == "completed"
        assert len(await live.lines(batch.output_file_id)) == len(BODIES)
        assert sorted(received.body for received in upstream.received) == sorted(BODIES)


async def test_a_batch_whose_ids_look_like_properties_keeps_them_apart(live: Live) -> None:
    names = [
        "__proto__",
        "constructor",
        "toString",
        "0",
        "-0",
        "0.0",
        " 0",
        "true",
        "\u00e9",
        "e\u0301",
    ]

    batch = await live.run([request(name, name) for name in names])

    lines = await live.lines(batch.output_file_id)
    assert [json.dumps(line["custom_id"]) for line in lines] == [json.dumps(n) for n in names]
