"""`/v1/files`, through the SDK."""

from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError

from tests.api.conftest import LINE, Site


async def test_an_upload_comes_back_as_a_processed_file(site: Site) -> None:
    file = await site.client.files.create(file=("in.jsonl", LINE), purpose="batch")

    assert file.id.startswith("file-")
    assert len(file.id) == len("file-") + 22
    assert (file.object, file.purpose, file.status) == ("file", "batch", "processed")
    assert (file.bytes, file.filename) == (len(LINE), "in.jsonl")
    assert file.created_at == site.clock.wall
    assert await site.client.files.retrieve(file.id) == file


async def test_a_batch_file_expires_after_30_days_and_others_never(site: Site) -> None:
    batch = await site.client.files.create(file=LINE, purpose="batch")
    other = await site.client.files.create(file=b"notes", purpose="user_data")

    assert batch.expires_at == batch.created_at + 2_592_000
    assert other.expires_at is None


async def test_an_expiry_that_is_asked_for_is_kept(site: Site) -> None:
    file = await site.client.files.create(
        file=LINE, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert file.expires_at == file.created_at + 3600


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(3599, "integer_below_min_value"), (2_592_001, "integer_above_max_value")],
)
async def test_an_expiry_out_of_bounds_is_refused(site: Site, seconds: int, code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await site.client.files.create(
            file=LINE, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
        )

    assert (refused.value.param, refused.value.code) == ("expires_after.seconds", code)
    assert site.blobs_on_disk() == []


async def test_an_unknown_purpose_is_refused(site: Site) -> None:
    with pytest.raises(BadRequestError) as refused:
        await site.client.files.create(file=LINE, purpose="nope")  # type: ignore[arg-type]

    assert (refused.value.param, refused.value.code) == ("purpose", "invalid_value")
    assert "'user_data'" in refused.value.message


async def test_bytes_without_a_name_can_be_a_batch(site: Site) -> None:
    file = await site.client.files.create(file=LINE, purpose="batch")

    assert file.filename == "upload"


@pytest.mark.parametrize(
    "name",
    ["größe 📦.jsonl", "../../etc/passwd", "x" * 10_000, "a;b=c.jsonl", "C:naïve"],
)
async def test_a_file_name_is_kept_as_text_and_becomes_no_path(site: Site, name: str) -> None:
    file = await site.client.files.create(file=(name, LINE), purpose="batch")
    raw = await site.client.files.with_raw_response.content(file.id)

    assert file.filename == name
    assert site.blobs_on_disk() == [file.id]
    assert len(raw.headers["content-disposition"]) < 2_000
    assert raw.content == LINE


async def test_a_line_break_in_a_file_name_breaks_no_header(site: Site) -> None:
    file = await site.client.files.create(file=("a\r\nset-cookie: b\r\n", LINE), purpose="batch")
    raw = await site.client.files.with_raw_response.content(file.id)

    assert "set-cookie" not in raw.headers


async def test_a_download_is_the_upload(site: Site) -> None:
    content = '{"custom_id": "größe \u2028 \u0085"}\n'.encode() * 20_000
    id = await site.upload(content)

    downloaded = await site.client.files.content(id)

    assert downloaded.content == content
    assert downloaded.text == content.decode()


async def test_a_download_can_be_read_line_by_line(site: Site) -> None:
    id = await site.upload(LINE * 10_000)

    async with site.client.files.with_streaming_response.content(id) as response:
        lines = [line async for line in response.iter_lines()]

    assert lines == [LINE.decode().rstrip()] * 10_000


async def test_a_list_is_walked_page_by_page(site: Site) -> None:
    ids = [await site.upload() for _ in range(5)]
    await site.client.files.create(file=b"notes", purpose="user_data")

    first = await site.client.files.list(purpose="batch", limit=2, order="asc")
    pages = [page async for page in first.iter_pages()]

    assert [[file.id for file in page.data] for page in pages] == [ids[:2], ids[2:4], ids[4:]]
    assert [page.has_more for page in pages] == [True, True, False]


async def test_a_list_is_newest_first_in_openais_envelope(site: Site) -> None:
    ids = [await site.upload() for _ in range(3)]

    async with site.http.get("/v1/files") as response:
        listing = await response.json()

    assert [file["id"] for file in listing.pop("data")] == ids[::-1]
    assert listing == {"object": "list", "first_id": ids[2], "last_id": ids[0], "has_more": False}


async def test_an_empty_list_has_no_ids_to_go_on_after(site: Site) -> None:
    async with site.http.get("/v1/files?purpose=evals&surprise=1") as response:
        listing = await response.json()

    assert listing == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=10001", "limit", "integer_above_max_value"),
        ("limit=abc", "limit", "invalid_type"),
        ("limit=", "limit", "invalid_type"),
        ("order=sideways", "order", "invalid_value"),
        ("after=file-missing", "after", "invalid_value"),
    ],
)
async def test_a_list_refuses_a_query_that_it_can_not_follow(
    site: Site, query: str, param: str, code: str
) -> None:
    async with site.http.get(f"/v1/files?{query}") as response:
        error = (await response.json())["error"]

    assert response.status == 400
    assert (error["param"], error["code"]) == (param, code)


async def test_a_deleted_file_is_gone(site: Site) -> None:
    id = await site.upload()

    assert (await site.client.files.delete(id)).deleted is True

    assert site.blobs_on_disk() == []
    for call in (site.client.files.retrieve, site.client.files.content, site.client.files.delete):
        with pytest.raises(NotFoundError):
            await call(id)


async def test_an_expired_file_is_not_found(site: Site) -> None:
    id = await site.upload()
    site.clock.wall += 2_592_000

    for call in (site.client.files.retrieve, site.client.files.content, site.client.files.delete):
        with pytest.raises(NotFoundError):
            await call(id)
    assert (await site.client.files.list()).data == []


@pytest.mark.parametrize("id", ["file-missing", "\0", "%2e%2e%2f", "x" * 50_000, "file-ÿ"])
async def test_a_file_that_is_not_there_is_not_found(site: Site, id: str) -> None:
    with pytest.raises(NotFoundError) as missing:
        await site.client.files.retrieve(id)

    assert missing.value.type == "invalid_request_error"
    assert len(missing.value.message) < 300


async def test_the_error_for_a_missing_file_names_it(site: Site) -> None:
    with pytest.raises(NotFoundError) as missing:
        await site.client.files.retrieve("file-missing")

    assert missing.value.message.endswith("No such File object: file-missing")
    assert (missing.value.param, missing.value.code) == ("id", None)


async def test_a_file_need_not_be_waited_for(site: Site) -> None:
    id = await site.upload()

    file = await site.client.files.wait_for_processing(id, poll_interval=60)

    assert file.status == "processed"


async def test_the_input_of_a_running_batch_can_be_deleted_and_its_bytes_stay(site: Site) -> None:
    id = await site.upload()
    await site.client.batches.create(
        input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    await site.client.files.delete(id)

    with pytest.raises(NotFoundError):
        await site.client.files.retrieve(id)
    assert site.blobs_on_disk() == [id]


async def test_a_file_that_is_deleted_while_it_is_downloaded_arrives_whole(
    site: Site, tmp_path: Path
) -> None:
    content = LINE * 40_000
    id = await site.upload(content)

    async with site.http.get(f"/v1/files/{id}/content") as response:
        first = await response.content.read(1)
        await site.client.files.delete(id)
        rest = await response.content.read()

    assert first + rest == content
