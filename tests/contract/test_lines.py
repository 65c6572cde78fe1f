"""What a batch tells of its lines while it runs, and afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from openai import BadRequestError, NotFoundError
from openai.types import Batch

from batch_api.settings import Settings
from tests.contract.conftest import WAIT_SECONDS, Live, jsonl, request
from tests.standin import HANG, Fault

REFUSED = Fault(status=400)
UNENDED = ["pending", "leased"]


async def results(live: Live, batch: Batch) -> bytes:
    answer = await live.client.get(f"/batches/{batch.id}/results", cast_to=str)
    return answer.encode()


async def lines(live: Live, batch: Batch, **query: Any) -> list[dict[str, Any]]:
    page = await page_of(live, batch, **query)
    return list(page["data"])


async def page_of(live: Live, batch: Batch, **query: Any) -> dict[str, Any]:
    page: dict[str, Any] = await live.client.get(
        f"/batches/{batch.id}/lines", cast_to=dict[str, Any], options={"params": query}
    )
    return page


def custom_ids(content: bytes) -> list[str]:
    return [json.loads(line)["custom_id"] for line in content.splitlines()]


async def until_ended(live: Live, batch: Batch, count: int) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while len(await lines(live, batch, state=["completed", "failed"])) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_finished_lines_can_be_read_while_others_run(live: Live) -> None:
    batch = await live.start(
        [
            request("a"),
            request("stuck", f"{HANG}x"),
            request("no", f"{REFUSED}no"),
            request("b"),
        ]
    )
    await until_ended(live, batch, 3)

    content = await results(live, batch)

    assert custom_ids(content) == ["a", "no", "b"]
    assert content.endswith(b"\n")
    by_id = {line["custom_id"]: line for line in map(json.loads, content.splitlines())}
    assert by_id["no"]["response"]["status_code"] == 400
    told = {line["custom_id"]: line for line in await lines(live, batch)}
    assert [told[id]["state"] for id in ("a", "stuck", "no", "b")] == [
        *("completed", "leased", "failed", "completed")
    ]
    assert told["no"] == {
        "object": "batch.line",
        "line": 3,
        "custom_id": "no",
        "state": "failed",
        "attempts": 1,
        "failures": 0,
        "seconds": 0.0,
        "error": {"code": None, "message": "as told: 400", "status_code": 400},
    }
    await live.client.batches.cancel(batch.id)


async def test_at_the_end_the_results_are_the_files_in_the_order_of_the_input(live: Live) -> None:
    texts = [f"{REFUSED}{n}" if n % 3 == 1 else str(n) for n in range(500)]
    batch = await live.run([request(f"row-{n}", text) for n, text in enumerate(texts)])
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None

    content = await results(live, batch)

    assert custom_ids(content) == [f"row-{n}" for n in range(500)]
    files = [batch.output_file_id, batch.error_file_id]
    told = b"".join([(await live.client.files.content(id)).content for id in files])
    assert sorted(content.splitlines()) == sorted(told.splitlines())


@asynccontextmanager
async def half_read(live: Live) -> AsyncIterator[tuple[Batch, AsyncIterator[bytes]]]:
    """A batch that hangs in its last line, and the rest of its results: more than sockets hold."""
    long = "x" * 30_000
    texts = [f"{long}{n}" for n in range(800)]
    lines = [request(f"row-{n}", text) for n, text in enumerate([*texts, f"{HANG}last"])]
    batch = await live.start(lines)
    await live.until_answered(batch, 800)
    url = f"{live.client.base_url}batches/{batch.id}/results"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        yield batch, answer.content.iter_any()


@pytest.mark.slow
async def test_a_batch_that_ends_while_its_results_are_read_gives_each_line_once(
    live: Live,
) -> None:
    async with half_read(live) as (batch, chunks):
        content = await anext(chunks)
        await live.finish(await live.client.batches.cancel(batch.id), seconds_a_look=100)
        await live.until_trimmed(batch)
        content += b"".join([chunk async for chunk in chunks])

    assert custom_ids(content) == [f"row-{n}" for n in range(801)]
    assert json.loads(content.splitlines()[-1])["error"]["code"] == "batch_cancelled"


@pytest.mark.slow
async def test_results_of_a_batch_that_is_deleted_meanwhile_are_cut_off(live: Live) -> None:
    async with half_read(live) as (batch, chunks):
        await anext(chunks)
        await live.finish(await live.client.batches.cancel(batch.id), seconds_a_look=100)
        await live.client.delete(f"/batches/{batch.id}", cast_to=object)
        await live.until_dropped()

        with pytest.raises(aiohttp.ClientPayloadError):
            async for _ in chunks:
                pass


async def test_lines_are_paged_and_chosen_by_their_state(live: Live) -> None:
    texts = [f"{REFUSED}{n}" if n % 2 else str(n) for n in range(6)]
    # A blank line counts.
    batch = await live.run(b"\n" + jsonl([request(f"row-{n}", t) for n, t in enumerate(texts)]))

    first = await page_of(live, batch, state="failed", limit=2)
    second = await page_of(live, batch, state="failed", limit=2, after=first["data"][-1]["line"])

    assert [line["line"] for line in first["data"] + second["data"]] == [3, 5, 7]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert {line["error"]["message"] for line in first["data"]} == {"as told: 400"}
    assert len(await lines(live, batch)) == 6
    assert len(await lines(live, batch, state=["failed", "completed"])) == 6
    assert await lines(live, batch, state=["pending", "leased"]) == []


async def test_what_was_not_run_says_why(live: Live) -> None:
    started = await live.start([request(str(n), f"{HANG}{n}") for n in range(3)])
    batch = await live.finish(await live.client.batches.cancel(started.id), seconds_a_look=100)

    told = await lines(live, batch)

    assert [line["state"] for line in told] == ["cancelled"] * 3
    assert {line["error"]["code"] for line in told} == {"batch_cancelled"}
    assert custom_ids(await results(live, batch)) == ["0", "1", "2"]


async def test_a_batch_that_is_not_valid_has_no_lines(live: Live) -> None:
    batch = await live.run([request("a", model="unknown")])

    assert await results(live, batch) == b""
    assert await lines(live, batch) == []


async def test_without_a_file_there_are_no_results_but_lines_without_their_errors(
    live: Live,
) -> None:
    batch = await live.run([request("a"), request("b", f"{REFUSED}b")])
    assert batch.error_file_id is not None
    await live.client.files.delete(batch.error_file_id)

    with pytest.raises(NotFoundError, match=batch.error_file_id):
        await results(live, batch)
    told = await lines(live, batch)
    assert [(line["state"], line["error"]) for line in told] == [
        ("completed", None),
        ("failed", None),
    ]


async def test_a_page_ends_early_where_errors_are_long_before_the_end_and_after_it(
    live: Live,
) -> None:
    message = "x" * 900_000
    long = Fault(status=400, body=json.dumps({"error": {"message": message}}))
    texts = [f"{long}{n}" for n in range(10)]
    batch = await live.start([request(f"row-{n}", t) for n, t in enumerate([*texts, f"{HANG}x"])])

    async def pages() -> list[list[str]]:
        found, after, has_more = [], 0, True
        while has_more:
            page = await page_of(live, batch, state="failed", after=after)
            assert {line["error"]["message"] for line in page["data"]} == {message}
            found.append([line["custom_id"] for line in page["data"]])
            after, has_more = page["data"][-1]["line"], page["has_more"]
        return found

    async with asyncio.timeout(WAIT_SECONDS):
        while len(await lines(live, batch, state=UNENDED)) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    expected = [[f"row-{n}" for n in range(9)], ["row-9"]]
    assert await pages() == expected
    await live.finish(await live.client.batches.cancel(batch.id), seconds_a_look=100)
    assert await pages() == expected


async def test_what_comes_before_a_page_is_not_looked_into(live: Live, settings: Settings) -> None:
    batch = await live.run([request(f"row-{n}", f"{REFUSED}{n}") for n in range(6)])
    file = settings.data_dir / "files" / str(batch.error_file_id)
    kept = file.read_bytes().splitlines(keepends=True)[4:]
    file.write_bytes(b"no line of ours\n" * 4 + b"".join(kept))

    told = await lines(live, batch, after=4)

    assert [(line["custom_id"], line["error"]["status_code"]) for line in told] == [
        ("row-4", 400),
        ("row-5", 400),
    ]


@pytest.mark.parametrize("query", [{"state": "odd"}, {"after": -1}, {"limit": 0}, {"limit": 1001}])
async def test_a_wrong_parameter_is_named(live: Live, query: dict[str, Any]) -> None:
    batch = await live.start([request("a")])

    with pytest.raises(BadRequestError) as refused:
        await lines(live, batch, **query)
    assert (refused.value.param or "").startswith(next(iter(query)))


async def test_a_line_tells_how_long_the_attempt_took_that_ended_it(live: Live) -> None:
    batch = await live.start([request("slow", f"{Fault(delay_ms=500)}x")])
    async with asyncio.timeout(20):
        while live.standin.stats.open == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    live.clock.turn(7)
    await live.finish(batch)

    (line,) = await lines(live, batch)
    assert line["seconds"] >= 7
