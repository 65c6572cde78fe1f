"""Long lists, walked by both clients of the SDK."""

import asyncio
from pathlib import Path

import pytest
from openai import DefaultHttpxClient, OpenAI
from sqlalchemy import insert

from batch_api.store import batches
from batch_api.store.database import Database
from batch_api.store.tables import FileRow
from batch_api.store.tenancy import DEFAULT_TENANT
from tests.api.conftest import START, Site

FILES = [f"file-{number}" for number in range(10_000)]
BATCHES = [f"batch_{number}" for number in range(1_000)]


async def fill(folder: Path) -> None:
    database = await Database.open(folder)
    async with database.of(DEFAULT_TENANT).write.begin() as session:
        await session.execute(
            insert(FileRow),
            [
                {
                    "id": id,
                    "tenant": DEFAULT_TENANT,
                    "filename": f"{id}.jsonl",
                    "purpose": "batch",
                    "bytes": 1,
                    "sha256": "",
                    "created_at": START,
                }
                for id in FILES
            ],
        )
        for id in BATCHES:
            batches.add(
                session,
                id=id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                input_file_id="file-1",
                output_file_id=f"file-out-{id}",
                error_file_id=f"file-err-{id}",
                created_at=START,
                expires_at=START + 86_400,
            )
    await database.close()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is full already, for all tests of this file."""
    folder = tmp_path_factory.mktemp("full")
    asyncio.run(fill(folder))
    return folder / "batch-api.db"


async def test_1000_batches_and_10000_files_are_walked_each_once_in_order(site: Site) -> None:
    seen = [batch.id async for batch in site.client.batches.list(limit=100)]
    oldest_first = [file.id async for file in site.client.files.list(limit=1_000, order="asc")]

    assert seen == BATCHES[::-1]
    assert oldest_first == FILES


async def test_a_list_without_a_limit_has_20_batches_or_10000_files(site: Site) -> None:
    of_batches, of_files = await site.client.batches.list(), await site.client.files.list()

    assert [batch.id for batch in of_batches.data] == BATCHES[:-21:-1]
    assert [file.id for file in of_files.data] == FILES[::-1]
    assert (of_batches.has_more, of_files.has_more) == (True, False)


async def test_the_client_that_blocks_walks_the_same_lists(site: Site) -> None:
    def walk() -> tuple[list[str], list[str]]:
        http = DefaultHttpxClient(verify=False)
        with OpenAI(base_url=f"{site.url}/v1", api_key="none", http_client=http) as client:
            return (
                [batch.id for batch in client.batches.list(limit=100)],
                [file.id for file in client.files.list(limit=5_000)],
            )

    assert await asyncio.to_thread(walk) == (BATCHES[::-1], FILES[::-1])


async def test_the_sdks_wrappers_of_raw_and_streamed_answers_work(site: Site) -> None:
    raw = await site.client.batches.with_raw_response.retrieve("batch_7")
    async with site.client.batches.with_streaming_response.list(limit=2) as streamed:
        page = await streamed.parse()

    assert (raw.status_code, raw.parse().id) == (200, "batch_7")
    assert raw.request_id == raw.headers["x-request-id"]
    assert [batch.id for batch in page.data] == ["batch_999", "batch_998"]
