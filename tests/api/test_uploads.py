"""`/v1/uploads`: files in parts, through the SDK."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError
from openai.types import Upload

from batch_api.settings import MIB, Settings
from tests.api.conftest import LINE, START, Site, until

CONTENT = LINE * 3


async def begin(site: Site, content: bytes = CONTENT, **more: Any) -> Upload:
    given = {"filename": "big.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    return await site.client.uploads.create(bytes=len(content), **{**given, **more})


async def add(site: Site, upload: Upload, data: bytes) -> str:
    return (await site.client.uploads.parts.create(upload.id, data=data)).id


async def completed(site: Site) -> tuple[Upload, list[str]]:
    upload = await begin(site)
    ids = [await add(site, upload, CONTENT[:5]), await add(site, upload, CONTENT[5:])]
    return await site.client.uploads.complete(upload.id, part_ids=ids), ids


async def test_a_new_upload_is_pending_for_an_hour(site: Site) -> None:
    upload = await begin(site)

    assert upload.id.startswith("upload_")
    assert (upload.object, upload.status, upload.file) == ("upload", "pending", None)
    assert (upload.created_at, upload.expires_at) == (START, START + 3600)
    assert (upload.bytes, upload.filename, upload.purpose) == (len(CONTENT), "big.jsonl", "batch")


async def test_a_part_belongs_to_its_upload(site: Site) -> None:
    upload = await begin(site)

    part = await site.client.uploads.parts.create(upload.id, data=b"x")

    assert part.id.startswith("part_")
    assert (part.object, part.upload_id, part.created_at) == ("upload.part", upload.id, START)


async def test_a_file_that_the_sdk_sends_in_chunks_arrives_whole(
    site: Site, tmp_path: Path
) -> None:
    content = b"".join(LINE.replace(b'"1"', b'"%d"' % n) for n in range(60))
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)

    upload = await site.client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch", part_size=1024
    )

    assert (upload.status, upload.filename) == ("completed", "in.jsonl")
    assert upload.file is not None
    assert (upload.file.bytes, upload.file.status) == (len(content), "processed")
    assert upload.file.expires_at == upload.file.created_at + 2_592_000
    assert (await site.client.files.content(upload.file.id)).content == content
    assert await site.client.files.retrieve(upload.file.id) == upload.file
    assert site.blobs_on_disk() == [upload.file.id]


async def test_parts_may_come_at_once_and_stand_in_the_order_of_the_completion(site: Site) -> None:
    pieces = [CONTENT[n * 50 : (n + 1) * 50] for n in range(len(CONTENT) // 50 + 1)]
    upload = await begin(site)
    ids = await asyncio.gather(*(add(site, upload, piece) for piece in reversed(pieces)))

    done = await site.client.uploads.complete(upload.id, part_ids=list(reversed(ids)))

    assert done.file is not None
    assert (await site.client.files.content(done.file.id)).content == CONTENT


async def test_parts_that_the_completion_leaves_out_are_dropped(site: Site) -> None:
    upload = await begin(site)
    await add(site, upload, b"sent twice by a retry")
    id = await add(site, upload, CONTENT)

    done = await site.client.uploads.complete(upload.id, part_ids=[id])

    assert done.file is not None
    assert site.blobs_on_disk() == [done.file.id]


async def test_an_expiry_that_is_asked_for_counts_from_the_completion(site: Site) -> None:
    upload = await begin(site, expires_after={"anchor": "created_at", "seconds": 3600})
    id = await add(site, upload, CONTENT)
    site.clock.wall += 60

    done = await site.client.uploads.complete(upload.id, part_ids=[id])

    assert done.file is not None
    assert (done.file.created_at, done.file.expires_at) == (START + 60, START + 3660)


@pytest.mark.parametrize("declared", [len(CONTENT) - 1, len(CONTENT) + 1])
async def test_parts_of_another_size_than_declared_are_refused(site: Site, declared: int) -> None:
    upload = await begin(site, b"x" * declared)
    id = await add(site, upload, CONTENT)

    with pytest.raises(BadRequestError) as refused:
        await site.client.uploads.complete(upload.id, part_ids=[id])

    assert refused.value.param == "part_ids"
    assert site.blobs_on_disk() == [id]


async def test_the_content_must_have_the_md5_that_is_told(site: Site) -> None:
    upload = await begin(site)
    ids = [await add(site, upload, CONTENT[:9]), await add(site, upload, CONTENT[9:])]

    with pytest.raises(BadRequestError) as refused:
        await site.client.uploads.complete(upload.id, part_ids=ids, md5="0" * 32)
    right = hashlib.md5(CONTENT).hexdigest().upper()
    done = await site.client.uploads.complete(upload.id, part_ids=ids, md5=right)

    assert refused.value.param == "md5"
    assert done.status == "completed"


@pytest.mark.parametrize(
    ("choose", "param", "code"),
    [
        (lambda a, b: [a, "part_nope"], "part_ids[1]", "invalid_value"),
        (lambda a, b: [a, b, a], "part_ids[2]", "invalid_value"),
        (lambda a, b: [], "part_ids", "empty_array"),
    ],
)
async def test_a_part_that_is_unknown_or_repeated_is_named(
    site: Site, choose: Any, param: str, code: str
) -> None:
    upload = await begin(site)
    ids = [await add(site, upload, CONTENT[:5]), await add(site, upload, CONTENT[5:])]

    with pytest.raises(BadRequestError) as refused:
        await site.client.uploads.complete(upload.id, part_ids=choose(*ids))

    assert (refused.value.param, refused.value.code) == (param, code)


async def test_a_part_of_another_upload_is_unknown(site: Site) -> None:
    mine, other = await begin(site), await begin(site)
    id = await add(site, other, CONTENT)

    with pytest.raises(BadRequestError):
        await site.client.uploads.complete(mine.id, part_ids=[id])


async def test_a_repeated_completion_gives_the_same_file(site: Site) -> None:
    first, ids = await completed(site)

    second = await site.client.uploads.complete(first.id, part_ids=ids)

    assert second == first
    assert len((await site.client.files.list()).data) == 1


async def test_completions_at_the_same_time_give_the_same_file(site: Site) -> None:
    upload = await begin(site)
    ids = [await add(site, upload, bytes([byte])) for byte in CONTENT[:20]]
    ids.append(await add(site, upload, CONTENT[20:]))

    done = await asyncio.gather(
        *(site.client.uploads.complete(upload.id, part_ids=ids) for _ in range(5))
    )

    assert {one.status for one in done} == {"completed"}
    assert {one.file.id for one in done if one.file} == set(site.blobs_on_disk())
    assert len(site.blobs_on_disk()) == 1


async def test_a_completion_with_other_parts_than_before_is_refused(site: Site) -> None:
    upload, ids = await completed(site)

    with pytest.raises(BadRequestError, match="'completed'"):
        await site.client.uploads.complete(upload.id, part_ids=ids[::-1])


async def test_a_cancelled_upload_takes_no_parts_and_keeps_none(site: Site) -> None:
    upload = await begin(site)
    id = await add(site, upload, CONTENT)

    cancelled = await site.client.uploads.cancel(upload.id)

    assert (cancelled.status, site.blobs_on_disk()) == ("cancelled", [])
    assert await site.client.uploads.cancel(upload.id) == cancelled
    with pytest.raises(BadRequestError, match="'cancelled'"):
        await add(site, upload, CONTENT)
    with pytest.raises(BadRequestError, match="'cancelled'"):
        await site.client.uploads.complete(upload.id, part_ids=[id])


async def test_a_completed_upload_can_not_be_cancelled_nor_added_to(site: Site) -> None:
    upload, _ = await completed(site)

    with pytest.raises(BadRequestError, match="'completed'"):
        await site.client.uploads.cancel(upload.id)
    with pytest.raises(BadRequestError, match="'completed'"):
        await add(site, upload, b"x")
    assert upload.file is not None
    assert site.blobs_on_disk() == [upload.file.id]


async def test_an_upload_is_over_after_an_hour(site: Site) -> None:
    upload = await begin(site)
    id = await add(site, upload, CONTENT)
    site.clock.wall += 3600

    for call in (
        add(site, upload, b"x"),
        site.client.uploads.complete(upload.id, part_ids=[id]),
        site.client.uploads.cancel(upload.id),
    ):
        with pytest.raises(BadRequestError, match="'expired'"):
            await call


async def test_an_unknown_upload_is_not_found(site: Site) -> None:
    for call in (
        site.client.uploads.parts.create("upload_x", data=b"x"),
        site.client.uploads.complete("upload_x", part_ids=["part_x"]),
        site.client.uploads.cancel("upload_x"),
    ):
        with pytest.raises(NotFoundError, match="upload_x"):
            await call


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({"bytes": 0}, "bytes", "integer_below_min_value"),
        ({"bytes": "5"}, "bytes", "invalid_type"),
        ({"bytes": 4 * MIB + 1}, "bytes", "integer_above_max_value"),
        ({"bytes": 16 * MIB + 1, "purpose": "vision"}, "bytes", "integer_above_max_value"),
        ({"purpose": "nope"}, "purpose", "invalid_value"),
        (
            {"expires_after": {"anchor": "created_at", "seconds": 1}},
            "expires_after.seconds",
            "integer_below_min_value",
        ),
        ({"filename": None}, "filename", "missing_required_parameter"),
    ],
)
async def test_an_upload_that_can_not_be_is_refused_at_once(
    site: Site, given: dict[str, Any], param: str, code: str
) -> None:
    new = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "batch", **given}

    async with site.http.post("/v1/uploads", json=new) as response:
        error = (await response.json())["error"]

    assert (response.status, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize(
    "purpose", ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
)
async def test_an_upload_may_have_any_purpose_and_any_type(site: Site, purpose: str) -> None:
    upload = await begin(site, purpose=purpose, mime_type="application/x-anything")

    assert upload.purpose == purpose


async def test_a_part_over_its_limit_is_refused_and_leaves_nothing(
    site: Site, settings: Settings
) -> None:
    upload = await begin(site)
    await add(site, upload, b"x" * settings.max_part_bytes)
    before = site.blobs_on_disk()

    with pytest.raises(APIStatusError) as refused:
        await site.client.with_options(max_retries=2).uploads.parts.create(
            upload.id, data=b"x" * (settings.max_part_bytes + 1)
        )

    assert refused.value.status_code == 413
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert site.blobs_on_disk() == before


async def test_a_part_needs_its_data(site: Site) -> None:
    upload = await begin(site)

    with pytest.raises(BadRequestError) as refused:
        await site.client.post(
            f"/uploads/{upload.id}/parts",
            cast_to=object,
            body={"x": "y"},
            files=[("other", b"z")],
            options={"headers": {"content-type": "multipart/form-data"}},
        )

    assert (refused.value.param, refused.value.code) == ("data", "missing_required_parameter")


async def test_an_upload_for_a_batch_must_be_jsonl(site: Site) -> None:
    upload = await begin(site, b"hello")
    id = await add(site, upload, b"hello")

    with pytest.raises(BadRequestError, match=r"\.jsonl"):
        await site.client.uploads.complete(upload.id, part_ids=[id])

    assert site.blobs_on_disk() == [id]


async def test_nothing_stays_of_a_part_whose_client_leaves(site: Site) -> None:
    upload = await begin(site)
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    data = b'--b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n' + b"x" * MIB
    writer.write(
        b"POST /v1/uploads/%s/parts HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"content-type: multipart/form-data; boundary=b\r\n\r\n" % (upload.id.encode(), len(data))
    )
    writer.write(data[: len(data) // 2])
    await writer.drain()
    await until(lambda: len(site.blobs_on_disk()) == 1)

    writer.close()

    await until(lambda: site.blobs_on_disk() == [])


async def test_a_completion_whose_client_leaves_can_be_asked_for_again(site: Site) -> None:
    content = LINE * (8 * MIB // 2 // len(LINE))
    upload = await begin(site, content)
    pieces = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    ids = [await add(site, upload, piece) for piece in pieces]
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    wanted = json.dumps({"part_ids": ids}).encode()
    writer.write(
        b"POST /v1/uploads/%s/complete HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
        % (upload.id.encode(), len(wanted), wanted)
    )
    await writer.drain()
    await until(lambda: set(site.blobs_on_disk()) != set(ids))

    writer.close()

    done = await site.client.uploads.complete(upload.id, part_ids=ids)
    assert done.file is not None
    assert (await site.client.files.content(done.file.id)).content == content
    await until(lambda: done.file is not None and site.blobs_on_disk() == [done.file.id])
