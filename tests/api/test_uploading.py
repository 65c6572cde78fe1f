"""Uploads as clients other than the SDK send them, and as nobody should."""

import asyncio
import gzip
import io
import resource
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError

from batch_api.settings import MIB
from tests.api.conftest import LINE, Site, until

FILE = b'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\n'
BOUNDARY = "multipart/form-data; boundary=b"


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


async def post(
    site: Site,
    body: bytes | AsyncIterator[bytes],
    content_type: str = BOUNDARY,
    encoding: str = "identity",
) -> tuple[int, dict[str, Any]]:
    headers = {"content-type": content_type, "content-encoding": encoding}
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with site.http.post("/v1/files", data=data, headers=headers) as response:
        assert response.headers["x-request-id"]
        return response.status, await response.json()


async def refuse(site: Site, body: bytes, content_type: str = BOUNDARY) -> dict[str, Any]:
    status, answer = await post(site, body, content_type)
    assert status == 400
    assert site.blobs_on_disk() == []
    error = answer["error"]
    assert error["type"] == "invalid_request_error"
    return dict(error)


async def test_the_parts_may_come_in_any_order_and_unknown_ones_are_ignored(site: Site) -> None:
    other = b'content-disposition: form-data; name="custom_llm_provider"\r\n\r\nopenai'

    status, file = await post(site, form(other, FILE + LINE, other, PURPOSE + b"batch"))

    assert (status, file["filename"], file["bytes"]) == (200, "in.jsonl", len(LINE))


async def test_a_body_that_trickles_in_byte_by_byte_is_understood(site: Site) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        body = form(PURPOSE + b"batch", FILE + LINE + b"\r\n--", FILE.replace(b"file", b"x", 1))
        for byte in body:
            yield bytes([byte])
            await asyncio.sleep(0)

    status, file = await post(site, trickle())

    assert status == 200
    content = await site.client.files.content(file["id"])
    assert content.content == LINE + b"\r\n--"


async def test_a_client_that_waits_for_permission_gets_it(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    body = form(FILE + LINE, PURPOSE + b"batch")
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n"
        b"content-type: %s\r\n\r\n" % (len(body), BOUNDARY.encode())
    )

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize(
    "name", [b"nul\0name", b"\xff\xfe", "🦆".encode(), b"", b"%22quoted%22", rb"a\"b"]
)
async def test_a_raw_file_name_is_kept_as_text(site: Site, name: bytes) -> None:
    part = b'Content-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % name
    status, file = await post(site, form(PURPOSE + b"batch", part + LINE))

    assert status == 200
    assert file["filename"] == name.replace(rb"\"", b'"').decode(errors="replace")
    assert (await site.client.files.content(file["id"])).content == LINE


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([PURPOSE + b"batch"], "file", "missing_required_parameter"),
        ([FILE + LINE], "purpose", "missing_required_parameter"),
        ([], "purpose", "missing_required_parameter"),
        ([PURPOSE + b"", FILE + LINE], "purpose", "invalid_value"),
        ([PURPOSE + b"batch_output", FILE + LINE], "purpose", "invalid_value"),
        ([PURPOSE + b"\xff", FILE + LINE], "purpose", "invalid_value"),
        ([PURPOSE + b"batch", FILE + LINE, FILE + LINE], "file", "invalid_value"),
        ([PURPOSE + b"batch", PURPOSE + b"batch", FILE + LINE], "purpose", "invalid_value"),
        ([PURPOSE + b"b" * 2_000, FILE + LINE], "purpose", "string_above_max_length"),
    ],
)
async def test_a_part_that_is_missing_or_wrong_is_named(
    site: Site, parts: list[bytes], param: str, code: str
) -> None:
    error = await refuse(site, form(*parts))

    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    ("seconds", "param", "code"),
    [
        (b"3600", "expires_after.anchor", "missing_required_parameter"),
        (b"soon", "expires_after.anchor", "missing_required_parameter"),
    ],
)
async def test_an_expiry_needs_its_anchor(
    site: Site, seconds: bytes, param: str, code: str
) -> None:
    part = b'Content-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n' + seconds

    error = await refuse(site, form(PURPOSE + b"batch", part, FILE + LINE))

    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "there is no line in the file"),
        (b"\n \r\n\n", "there is no line in the file"),
        (b"\xef\xbb\xbf", "there is no line in the file"),
        (b"hello\n", "line 1 is not a JSON object"),
        (b"\n\nhello", "line 3 is not a JSON object"),
        (b"[1]\n", "line 1 is not a JSON object"),
        (b'"text"\n', "line 1 is not a JSON object"),
        (b"{'a': 1}\n", "line 1 is not a JSON object"),
        (b'{"a": 1\n}\n', "line 1 is not a JSON object"),
        ('{"a": 1}\n'.encode("utf-16"), "line 1 is not a JSON object"),
        (b"\x00\x01\x02", "line 1 is not a JSON object"),
        (b"\xff{}\n", "line 1 is not a JSON object"),
        (b'{"a":' * 10_000, "line 1 is not a JSON object"),
        (b"x" * MIB, "line 1 is not a JSON object"),
        (b"\n" + b"x" * MIB, "line 2 is not a JSON object"),
        (gzip.compress(LINE, mtime=0), "the file is compressed; unpack it first"),
    ],
    ids=lambda given: given[:8] if isinstance(given, bytes) else "",
)
async def test_what_is_no_jsonl_is_no_batch(site: Site, content: bytes, problem: str) -> None:
    message = rf"Invalid file format for Batch API\. Must be \.jsonl, but {problem}\."
    with pytest.raises(BadRequestError, match=message) as refused:
        await site.client.files.create(file=("in.jsonl", content), purpose="batch")

    assert (refused.value.param, refused.value.code) == (None, None)
    assert site.blobs_on_disk() == []


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + LINE,
        LINE.replace(b"\n", b"\r\n"),
        LINE.rstrip(),
        b"\n\n  \r\n" + LINE,
        LINE + b"not JSON\n",
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": 1e999}',
        b'{"long": "' + b"x" * MIB + b'"}\n',
        b"\n" * MIB + LINE,
    ],
    ids=lambda content: content[:8],
)
async def test_what_begins_as_jsonl_is_left_to_the_batch_to_judge(
    site: Site, content: bytes
) -> None:
    file = await site.client.files.create(file=("in.jsonl", content), purpose="batch")

    assert file.bytes == len(content)


async def test_other_purposes_take_any_bytes(site: Site) -> None:
    file = await site.client.files.create(file=("empty", b""), purpose="user_data")

    assert (file.bytes, (await site.client.files.content(file.id)).content) == (0, b"")


@pytest.mark.parametrize(("purpose", "size"), [("batch", 4 * MIB), ("user_data", 8 * MIB)])
async def test_a_file_at_its_limit_is_accepted_and_one_byte_more_is_not(
    site: Site, purpose: Any, size: int
) -> None:
    content = LINE.ljust(size)

    file = await site.client.files.create(file=("in.jsonl", content), purpose=purpose)
    with pytest.raises(APIStatusError) as refused:
        await site.client.with_options(max_retries=2).files.create(
            file=("in.jsonl", content + b" "), purpose=purpose
        )

    assert file.bytes == size
    assert (refused.value.status_code, refused.value.type) == (413, "invalid_request_error")
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert site.blobs_on_disk() == [file.id]


async def test_a_file_that_is_announced_too_large_is_refused_before_it_is_sent(
    site: Site,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n"
        b"content-type: %s\r\n\r\n" % BOUNDARY.encode()
    )

    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_file_that_was_not_announced_is_refused_as_soon_as_it_is_too_large(
    site: Site,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"--b\r\n" + PURPOSE + b"batch\r\n--b\r\n" + FILE
        while sent < 256 * MIB:
            yield LINE.ljust(65_536)
            sent += 65_536

    status, answer = await post(site, endless())

    assert status == 413
    assert "too large" in answer["error"]["message"]
    assert sent < 64 * MIB
    assert site.blobs_on_disk() == []


async def test_a_batch_that_turns_out_to_be_one_after_its_bytes_has_the_smaller_limit(
    site: Site,
) -> None:
    status, _ = await post(site, form(FILE + LINE.ljust(5 * MIB), PURPOSE + b"batch"))

    assert status == 413
    assert site.blobs_on_disk() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        form(PURPOSE + b"batch", FILE + LINE, end=b""),
        form(PURPOSE + b"batch", FILE + LINE, end=b"--b\r\n"),
        form(PURPOSE + b"batch", FILE + LINE).replace(b"--b", b"--c"),
        b"no form at all",
        form(b"Content-Disposition: form-data\r\n\r\n", PURPOSE + b"batch", FILE + LINE),
        form(b"\r\n", PURPOSE + b"batch", FILE + LINE),
        form(PURPOSE.replace(b"\r\n", b"\r\nx: y", 1) + b"batch"),
        form(b"a: " + b"b" * MIB + b"\r\n\r\n"),
        form(b"a: b\r\n" * 1_000 + PURPOSE + b"batch"),
        form(*[PURPOSE.replace(b"purpose", b"x")] * 50_000),
    ],
    ids=lambda body: f"{len(body)} bytes {body[:12]!r}",
)
async def test_a_form_that_is_broken_is_refused(site: Site, body: bytes) -> None:
    error = await refuse(site, body)

    assert "multipart" in error["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 60_000,
        "multipart/mixed; boundary=b",
    ],
    ids=lambda content_type: content_type[:40],
)
async def test_a_body_that_is_no_form_is_refused(site: Site, content_type: str) -> None:
    await refuse(site, form(PURPOSE + b"batch", FILE + LINE), content_type)


async def test_nothing_stays_of_an_upload_whose_client_leaves(site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    body = form(PURPOSE + b"batch", FILE + LINE * 30_000)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"content-type: %s\r\n\r\n" % (len(body), BOUNDARY.encode())
    )
    writer.write(body[: len(body) // 2])
    await writer.drain()
    await until(lambda: len(site.blobs_on_disk()) == 1)

    writer.close()

    await until(lambda: site.blobs_on_disk() == [])
    assert (await site.client.files.list()).data == []


async def test_a_compressed_upload_is_kept_as_it_was_before(site: Site) -> None:
    content = LINE * 40_000
    body = form(PURPOSE + b"batch", FILE + content)
    packed = gzip.compress(body[:MIB], mtime=0) + gzip.compress(body[MIB:])

    status, file = await post(site, packed, encoding="gzip")

    assert (status, file["bytes"]) == (200, len(content))
    assert (await site.client.files.content(file["id"])).content == content


async def test_a_compressed_body_in_json_is_understood(site: Site) -> None:
    new = b'{"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "vision"}'
    headers = {"content-encoding": "gzip"}

    async with site.http.post(
        "/v1/uploads", data=gzip.compress(new, mtime=0), headers=headers
    ) as response:
        assert (response.status, (await response.json())["purpose"]) == (200, "vision")


async def test_what_grows_beyond_the_limit_is_refused_however_small_it_was(site: Site) -> None:
    bomb = gzip.compress(form(PURPOSE + b"batch", FILE + LINE.ljust(64 * MIB)))
    assert len(bomb) < MIB // 8

    status, answer = await post(site, bomb, encoding="gzip")
    headers = {"content-encoding": "gzip"}
    json_bomb = gzip.compress(b" " * 64 * MIB, mtime=0)
    async with site.http.post("/v1/batches", data=json_bomb, headers=headers) as response:
        assert response.status == 413

    assert (status, answer["error"]["type"]) == (413, "invalid_request_error")
    assert site.blobs_on_disk() == []


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"plain", "gzip", 400),
        (gzip.compress(b"x" * 9_000, mtime=0)[:-12], "gzip", 400),
        (b"", "gzip", 400),
        (gzip.compress(b"x", mtime=0) + b"trailing", "gzip", 400),
        (b"plain", "br", 415),
        (b"plain", "gzip, gzip", 415),
    ],
    ids=["not gzip", "cut off", "empty", "trailing bytes", "brotli", "twice"],
)
async def test_a_body_that_can_not_be_decompressed_is_refused(
    site: Site, body: bytes, encoding: str, status: int
) -> None:
    found, answer = await post(site, body, encoding=encoding)

    assert (found, answer["error"]["type"]) == (status, "invalid_request_error")
    assert site.blobs_on_disk() == []


@pytest.fixture
def disk_of_two_mebibytes() -> Iterator[None]:
    """A limit on the size of any file gives the errors of a full disk; Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("disk_of_two_mebibytes")
@pytest.mark.parametrize("size", [2 * MIB + 1, 3 * MIB + 5])
async def test_an_upload_that_fills_the_disk_leaves_nothing_and_the_server_lives(
    site: Site, size: int
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await site.client.with_options(max_retries=2).files.create(
            file=("in.jsonl", LINE.ljust(size)), purpose="batch"
        )

    assert (refused.value.status_code, refused.value.code) == (507, "insufficient_storage")
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert site.blobs_on_disk() == []
    assert await site.upload()
