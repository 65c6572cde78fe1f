"""What is not passed on, wherever in a body it hides; and what is."""

import json
import time
from typing import Any

import pytest

from batch_api.errors import BadRequest
from batch_api.forbidden import check_body

METADATA = "http://169.254.169.254/latest/meta-data"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def refusal(body: Any, *hosts: str) -> BadRequest | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        check_body(raw, hosts)
    except BadRequest as error:
        return error
    return None


def chat(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "link",
    [
        METADATA,
        "http://localhost:5000/v1/files",
        "http://[::1]/",
        "file:///etc/passwd",
        "/etc/passwd",
        "FILE:///etc/passwd",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "//169.254.169.254/",
        " http://169.254.169.254/",
        "http:/169.254.169.254/",
        "",
    ],
)
def test_a_link_is_refused_by_name(link: str) -> None:
    error = refusal(chat({"type": "text", "text": "What is it?"}, image(link)))

    assert error is not None
    assert (error.status, error.code) == (400, "link_not_allowed")
    assert error.param == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat({"type": "video_url", "video_url": {"url": METADATA}}), ".video_url.url"),
        (chat({"type": "audio_url", "audio_url": {"url": METADATA}}), ".audio_url.url"),
        (chat({"type": "image_url", "image_url": METADATA}), ".image_url"),
        (chat({"type": "image", "image": METADATA}), ".image"),
        (chat({"type": "image", "image": "file:/etc/passwd"}), ".image"),
        ({"input": [{"content": [{"type": "input_image", "image_url": METADATA}]}]}, ".image_url"),
        ({"input": [{"content": [{"type": "input_file", "file_url": METADATA}]}]}, ".file_url"),
        ({"tools": [{"type": "mcp", "server_url": METADATA}]}, "tools[0].server_url"),
        ({"image_urls": [PIXEL, METADATA]}, "image_urls"),
        ({"imageUrl": METADATA}, "imageUrl"),
        ({"video": [METADATA]}, "video"),
    ],
)
def test_a_link_is_found_wherever_an_upstream_may_look_for_one(body: Any, param: str) -> None:
    error = refusal(body)

    assert error is not None
    assert error.param is not None
    assert error.param.endswith(param)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"image_url": "data:,", "image_url": "http://evil"}',
        b'{"image_url": "http://evil", "image_url": "data:,"}',
        rb'{"image_\u0075rl": "http:\/\/evil"}',
        rb'{"image": "http\u003a\/\/evil"}',
        rb'{"image": "http:\/\/evil"}',
        '{"image_url": "http://evil"}'.encode("utf-16"),
        '{"image_url": "http://evil"}'.encode("utf-32-le"),
        '\ufeff{"image_url": "http://evil"}'.encode(),
        b'{"a": "\xff\n", "b": NaN, "c": ' + b"9" * 5_000 + b', "url": "http://evil"}',
    ],
    ids=["last", "first", "key", "scheme", "slashes", "utf-16", "utf-32", "bom", "hardly json"],
)
def test_no_spelling_hides_a_link(raw: bytes) -> None:
    error = refusal(raw)

    assert error is not None
    assert error.code == "link_not_allowed"


@pytest.mark.parametrize(
    "raw",
    [b'{"url": ' + b"[" * 100_000, b'{"url": "http://evil"', b"url", b'{"url": "data:,"} {}'],
    ids=["deep", "open", "no json", "twice"],
)
def test_what_can_not_be_looked_through_is_not_passed_on(raw: bytes) -> None:
    error = refusal(raw)

    assert error is not None
    assert "not valid JSON" in error.message


@pytest.mark.parametrize(
    "body",
    [
        chat(
            {"type": "text", "text": f"Is {METADATA} an url?"}, image(PIXEL), image(PIXEL.upper())
        ),
        chat({"type": "input_audio", "input_audio": {"data": "//uQxAAA", "format": "mp3"}}),
        chat({"type": "image", "image": "/9j/4AAQSkZJRg=="}),
        {"metadata": {"url": METADATA, "chat_template": "x"}},
        {"tools": [{"function": {"parameters": {"properties": {"url": {"default": METADATA}}}}}]},
        {"response_format": {"json_schema": {"schema": {"examples": [{"url": METADATA}]}}}},
        {"messages": [{"annotations": [{"url_citation": {"url": METADATA}}]}]},
        {"messages": [{"tool_calls": [{"function": {"arguments": f'{{"url": "{METADATA}"}}'}}]}]},
        {"curl": METADATA, "image_url": None, "url": 5, "chat_template": None},
        [METADATA],
        METADATA,
    ],
    ids=str,
)
def test_what_nobody_follows_is_passed_on(body: Any) -> None:
    assert refusal(body) is None


@pytest.mark.parametrize(
    ("link", "is_allowed"),
    [
        ("https://images.example.com/a.png?b=c#d", True),
        ("HTTP://Images.Example.COM:8080", True),
        ("http://[fd00::1]:80/", True),
        ("https://evil.example/images.example.com", False),
        ("https://images.example.com.evil.example/", False),
        ("https://images.example.com@evil.example/", False),
        ("http://evil.example\\@images.example.com/", False),
        ("http://images.example.com\\@evil.example/", False),
        ("https://images.example.com\n/", False),
        ("ftp://images.example.com/", False),
        ("file://images.example.com/", False),
    ],
)
def test_links_lead_to_allowed_hosts_only_however_they_are_read(
    link: str, is_allowed: bool
) -> None:
    error = refusal(chat(image(link)), "images.example.com", "fd00::1")

    assert (error is None) is is_allowed


def test_an_operator_may_allow_any_host_but_no_files() -> None:
    assert refusal(chat(image(METADATA)), "*") is None
    assert refusal(chat(image("file:///etc/passwd")), "*") is not None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(chat_template="{{ 7 * 7 }}"), "chat_template"),
        (chat(chat_template=[]), "chat_template"),
        (
            chat(chat_template_kwargs={"chat_template": "{{ 7 * 7 }}"}),
            "chat_template_kwargs.chat_template",
        ),
        (chat(extra_body={"chat_template": "{{ 7 * 7 }}"}), "extra_body.chat_template"),
    ],
)
def test_a_template_is_not_passed_on(body: Any, param: str) -> None:
    error = refusal(body)

    assert error is not None
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"' + b"k" * 10_000 + b'": ' + b'{"url":' * 150 + b"1" + b"}" * 151,
        b'{"a":[' + b'{"url":"data:,"},' * 100_000 + b"1]}",
        b'{"a":"' + b"\\u0041" * 1_000_000 + b'"}',
        b'{"url":' + b"9" * 5_000_000 + b"}",
        (b'{"' + b"k" * 20_000 + b'":') * 150 + b'"url"' + b"}" * 150,
    ],
    ids=["deep", "many", "escapes", "digits", "long keys"],
)
def test_a_large_body_is_looked_through_quickly(raw: bytes) -> None:
    began = time.process_time()

    assert refusal(raw) is None

    assert time.process_time() - began < 5  # a hundredth of it, on an idle machine
