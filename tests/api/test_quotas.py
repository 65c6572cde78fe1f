"""What a tenant may take up: bytes, uploads at once, batches under way."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from openai import APIStatusError, RateLimitError
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from batch_api.settings import MIB, Settings
from batch_api.store import batches, files
from batch_api.store.batches import Tally, Usage
from batch_api.store.tenancy import DEFAULT_TENANT
from tests.api import keys
from tests.api.conftest import LINE, START, Site, sdk, until
from tests.api.test_uploading import FILE, PURPOSE, form, post
from tests.store import rows

SIZE = 400_000


@pytest.fixture
def min_free_bytes() -> int:
    return 0


@pytest.fixture
def settings(settings: Settings, min_free_bytes: int) -> Settings:
    return settings.model_copy(
        update={
            "max_stored_bytes": MIB,
            "max_uploads_at_once": 3,
            "max_active_batches": 2,
            "min_free_bytes": min_free_bytes,
        }
    )


def blob(size: int = SIZE) -> bytes:
    return LINE + b" " * (size - len(LINE) - 1) + b"\n"


def upload_form(content: bytes) -> bytes:
    return form(PURPOSE + b"batch", FILE + content)


async def begin_batch(site: Site, input_file_id: str, **headers: str) -> str:
    batch = await site.client.batches.create(
        input_file_id=input_file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers=headers,
    )
    return batch.id


@asynccontextmanager
async def uploading(site: Site) -> AsyncIterator[asyncio.Event]:
    """An upload that is under way, until it is told to go on, or its client leaves."""
    body, go_on = upload_form(LINE), asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield body[:100]
        await go_on.wait()
        yield body[100:]

    on_disk = len(site.blobs_on_disk())
    sending = asyncio.create_task(post(site, trickle()))
    await until(lambda: len(site.blobs_on_disk()) > on_disk)
    try:
        yield go_on
        assert (await sending)[0] == 200
    finally:
        sending.cancel()


async def test_what_does_not_fit_is_refused_until_something_is_deleted(site: Site) -> None:
    first = await site.upload(blob())
    await site.upload(blob())

    with pytest.raises(APIStatusError) as refused:
        await site.upload(blob())

    assert (refused.value.status_code, refused.value.code) == (413, "insufficient_quota")
    numbers = f"Limit {MIB}, stored {2 * SIZE}, coming in at least"
    assert re.search(rf"{numbers} \d{{6}}\.", refused.value.message)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(site.blobs_on_disk()) == 2
    await site.client.files.delete(first)
    await site.upload(blob())


async def test_the_last_byte_may_be_taken_and_no_more(site: Site) -> None:
    await site.upload(blob(MIB - len(LINE)))
    await site.upload()

    with pytest.raises(APIStatusError):
        await site.upload()


async def test_what_is_announced_too_large_is_refused_before_it_is_sent(site: Site) -> None:
    await site.upload(blob())
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 800000\r\n"
        b"content-type: multipart/form-data; boundary=b\r\n\r\n"
    )

    assert b" 413 " in await reader.readline()
    writer.close()


async def test_what_was_not_announced_is_refused_as_soon_as_it_does_not_fit(site: Site) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"--b\r\n" + PURPOSE + b"batch\r\n--b\r\n" + FILE + LINE
        while sent < 64 * MIB:
            sent += 65536
            yield b" " * 65536

    await site.upload(blob())
    try:
        status, answer = await post(site, endless())
        assert (status, answer["error"]["code"]) == (413, "insufficient_quota")
    except OSError:
        """The server hung up on us before we had read its answer."""
    assert sent < 64 * MIB
    assert len(site.blobs_on_disk()) == 1


@pytest.mark.parametrize("size", [560_000, 900_000])
async def test_of_two_uploads_at_once_only_one_takes_the_last_room(site: Site, size: int) -> None:
    """Small enough to pass while they come in, or too large for that already."""
    ended = await asyncio.gather(
        *(site.upload(blob(size)) for _ in range(2)), return_exceptions=True
    )

    assert sum(isinstance(one, str) for one in ended) == 1
    assert sum(isinstance(one, APIStatusError) for one in ended) == 1
    assert len(site.blobs_on_disk()) == 1


async def test_parts_count_and_putting_them_together_takes_no_more_room(site: Site) -> None:
    content = blob(900_000)
    upload = await site.client.uploads.create(
        bytes=len(content), filename="a", mime_type="a/b", purpose="batch"
    )
    ids = [
        (await site.client.uploads.parts.create(upload.id, data=part)).id
        for part in (content[:500_000], content[500_000:])
    ]
    with pytest.raises(APIStatusError) as refused:
        await site.client.uploads.parts.create(upload.id, data=b" " * 200_000)
    assert refused.value.code == "insufficient_quota"

    done = await site.client.uploads.complete(upload.id, part_ids=ids)

    assert done.status == "completed"
    async with site.database.of("default").read() as session:
        assert await files.stored_bytes(session) == 900_000


async def test_a_deleted_input_counts_for_as_long_as_a_batch_needs_it(site: Site) -> None:
    for _ in range(2):
        id = await site.upload(blob())
        batch_id = await begin_batch(site, id)
        await site.client.files.delete(id)
    with pytest.raises(APIStatusError):
        await site.upload(blob())

    await end(site, batch_id)

    await site.upload(blob())


async def test_an_upload_that_is_sent_again_needs_no_room_for_it(site: Site) -> None:
    key = {"Idempotency-Key": "again"}
    sent = [
        await site.client.files.create(file=blob(500_000), purpose="batch", extra_headers=key)
        for _ in range(2)
    ]
    await site.upload(blob(500_000))

    assert sent[0] == sent[1]


async def test_one_tenant_is_full_and_another_is_not(site: Site) -> None:
    one, other = [await keys.make(site.keyring, site.settings, name) for name in ("a", "b")]
    async with sdk(site.url, one) as full, sdk(site.url, other) as empty:
        await full.files.create(file=blob(MIB), purpose="batch")
        with pytest.raises(APIStatusError):
            await full.files.create(file=LINE, purpose="batch")
        await empty.files.create(file=blob(MIB), purpose="batch")


async def test_uploads_at_once_are_bounded_and_those_that_end_make_room(site: Site) -> None:
    async with uploading(site) as first, uploading(site) as second:
        async with uploading(site) as third:
            with pytest.raises(RateLimitError) as refused:
                await site.upload()
            assert refused.value.code == "rate_limit_exceeded"
            assert refused.value.response.headers["retry-after"] == "1"
            third.set()
        assert await site.upload()
        first.set()
        second.set()


async def test_an_upload_whose_client_leaves_makes_room(site: Site) -> None:
    for _ in range(4):
        with pytest.raises(InterruptedError):
            async with uploading(site):
                raise InterruptedError
        await until(lambda: site.blobs_on_disk() == [])

    assert await site.upload()


async def test_batches_under_way_are_bounded_and_to_try_again_at_once_is_useless(
    site: Site,
) -> None:
    id = await site.upload()
    first = await begin_batch(site, id)
    second = await begin_batch(site, id, **{"Idempotency-Key": "second"})

    with pytest.raises(RateLimitError) as refused:
        await begin_batch(site, id)

    assert refused.value.code == "rate_limit_exceeded"
    assert "Limit 2, active 2." in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert await begin_batch(site, id, **{"Idempotency-Key": "second"}) == second
    await end(site, first)
    assert await begin_batch(site, id)


async def end(site: Site, batch_id: str) -> None:
    async with site.database.write.begin() as session:
        batch = await batches.get(session, batch_id)
        assert batch is not None
        assert await batches.fail(session, batch.number, errors=[], now=START, webhook_urls=())


async def half_answered(site: Site, *, output_bytes: int) -> str:
    """The id of a cancelled batch, of which one line of two was answered with so many bytes."""
    now = float(START)
    await rows.add_file(site.database, "file-in")
    number = await rows.add_batch(site.database, lines=2)
    async with site.database.of(DEFAULT_TENANT).write.begin() as session:
        await batches.tally(session, number, Tally(1, 0, Usage()))
        assert await batches.cancel(session, "batch_1", now=now)
        await batches.mark_finalizing(session, number, now=now)
        status = BatchStatus.CANCELLED
        left = BatchStatus.CANCELLING
        assert await batches.finish(session, number, left, status, now=now, webhook_urls=())
        files.add(
            session,
            id="file-out-batch_1",
            filename="out.jsonl",
            purpose="batch_output",
            bytes=output_bytes,
            sha256="",
            created_at=START,
            expires_at=None,
        )
    return "batch_1"


async def retry(site: Site, id: str) -> Batch:
    return await site.client.post(f"/batches/{id}/retry", cast_to=Batch)


async def test_a_retry_needs_room_for_the_answers_that_it_takes_over(site: Site) -> None:
    id = await half_answered(site, output_bytes=MIB // 2 + 1)

    with pytest.raises(APIStatusError) as refused:
        await retry(site, id)

    assert (refused.value.status_code, refused.value.code) == (413, "insufficient_quota")
    assert len((await site.client.batches.list()).data) == 1


@pytest.mark.parametrize("min_free_bytes", [2**60])
async def test_below_the_mark_no_retry_begins_and_no_task_is_taken(site: Site) -> None:
    id = await half_answered(site, output_bytes=1)

    with pytest.raises(APIStatusError) as refused:
        await retry(site, id)
    text = {"text": "hi", "model_name": "m"}
    async with site.http.post("/send_text", json=text) as answer:
        assert answer.status == refused.value.status_code == 507

    assert len((await site.client.batches.list()).data) == 1
    assert site.blobs_on_disk() == []
