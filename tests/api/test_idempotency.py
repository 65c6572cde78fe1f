"""`Idempotency-Key`: what is sent again creates nothing more."""

import asyncio
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError
from openai.types import Batch, FileObject, Upload

from tests.api.conftest import LINE, START, Site

KEY = {"Idempotency-Key": "nightly-1"}


async def create_file(site: Site, content: bytes = LINE) -> FileObject:
    return await site.client.files.create(
        file=("in.jsonl", content), purpose="batch", extra_headers=KEY
    )


async def create_batch(site: Site, input_file_id: str, **more: Any) -> Batch:
    return await site.client.batches.create(
        input_file_id=input_file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers=KEY,
        **more,
    )


async def create_upload(site: Site, filename: str = "a") -> Upload:
    return await site.client.uploads.create(
        bytes=len(LINE),
        filename=filename,
        mime_type="text/jsonl",
        purpose="batch",
        extra_headers=KEY,
    )


async def test_a_file_that_is_sent_again_is_the_same_file(site: Site) -> None:
    first = await create_file(site)
    site.clock.wall += 60

    assert await create_file(site) == first
    assert site.blobs_on_disk() == [first.id]


async def test_a_batch_that_is_sent_again_is_the_same_batch_even_without_its_input(
    site: Site,
) -> None:
    id = await site.upload()
    first = await create_batch(site, id, metadata={"a": "b"})
    await site.client.files.delete(id)

    assert await create_batch(site, id, metadata={"a": "b"}) == first


async def test_an_upload_and_a_part_that_are_sent_again_are_the_same(site: Site) -> None:
    upload = await create_upload(site)
    assert await create_upload(site) == upload

    first = await site.client.uploads.parts.create(upload.id, data=LINE, extra_headers=KEY)
    again = await site.client.uploads.parts.create(upload.id, data=LINE, extra_headers=KEY)

    assert again == first
    assert site.blobs_on_disk() == [first.id]


async def test_calls_with_the_same_key_at_the_same_time_create_one_object(site: Site) -> None:
    id = await site.upload()

    batches = await asyncio.gather(*(create_batch(site, id) for _ in range(8)))
    files = await asyncio.gather(*(create_file(site) for _ in range(8)))

    assert len({batch.id for batch in batches}) == 1
    assert len({file.id for file in files}) == 1
    assert len((await site.client.batches.list()).data) == 1
    assert sorted(site.blobs_on_disk()) == sorted([id, files[0].id])


async def test_a_key_that_was_used_for_something_else_is_refused(site: Site) -> None:
    file = await create_file(site)
    await create_batch(site, file.id)
    await create_upload(site)

    for call in (
        create_file(site, LINE * 2),
        create_batch(site, file.id, metadata={"a": "b"}),
        create_upload(site, "b"),
    ):
        with pytest.raises(BadRequestError) as refused:
            await call
        assert refused.value.code == "idempotency_key_reused"
        assert refused.value.param == "Idempotency-Key"
    assert site.blobs_on_disk() == [file.id]


async def test_a_call_that_was_refused_leaves_its_key_free(site: Site) -> None:
    with pytest.raises(NotFoundError):
        await create_batch(site, "file-missing")

    assert await create_batch(site, await site.upload())


async def test_a_key_is_forgotten_after_a_day(site: Site) -> None:
    first = await create_upload(site)
    site.clock.wall += 24 * 3600

    second = await create_upload(site)

    assert second.id != first.id
    assert second.created_at == START + 24 * 3600


async def test_an_earlier_object_that_is_gone_is_not_created_again(site: Site) -> None:
    file = await create_file(site)
    await site.client.files.delete(file.id)

    with pytest.raises(NotFoundError):
        await create_file(site)

    assert site.blobs_on_disk() == []


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_is_none_is_refused(site: Site, key: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await site.client.files.create(
            file=LINE, purpose="batch", extra_headers={"Idempotency-Key": key}
        )

    assert refused.value.param == "Idempotency-Key"
