"""Batches as a client of OpenAI's sees them, from its upload to its results."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from openai import ConflictError
from openai.types.chat import ChatCompletion

from batch_api.settings import Settings
from tests.contract.conftest import Live, jsonl, request
from tests.standin import HANG, Fault

BAD = Fault(status=400)


def counts(total: int, completed: int, failed: int) -> dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


async def test_a_batch_of_20_requests_completes(live: Live) -> None:
    lines = [request(f"row-{n}", f"question {n}") for n in range(20)]

    batch = await live.run(lines, metadata={"k": "v"})

    assert (batch.status, batch.error_file_id, batch.metadata) == ("completed", None, {"k": "v"})
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == counts(20, 20, 0)
    moments = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert all(one and other and one <= other for one, other in pairwise(moments))
    never = [batch.failed_at, batch.expired_at, batch.cancelling_at, batch.cancelled_at]
    assert never == [None] * 4
    output = await live.lines(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines]
    assert len({line["id"] for line in output}) == 20
    for line in output:
        assert line["id"].startswith("batch_req_")
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        assert line["response"]["request_id"]
        ChatCompletion.model_validate(line["response"]["body"])


async def test_a_batch_sums_up_the_usage_of_its_answers_and_names_their_model(live: Live) -> None:
    batch = await live.run([request("a", "one two"), request("b", "three")])

    output = await live.lines(batch.output_file_id)
    total = sum(line["response"]["body"]["usage"]["total_tokens"] for line in output)
    assert batch.usage is not None
    assert batch.usage.total_tokens == total > 0
    assert batch.usage.input_tokens + batch.usage.output_tokens == total
    assert batch.model == "stand-in"


async def test_an_output_file_is_a_file_like_any_other(live: Live) -> None:
    batch = await live.run([request("a"), request("b", f"{BAD}")])

    listed = await live.client.files.list(purpose="batch_output")

    by_id = {file.id: file for file in listed.data}
    assert set(by_id) == {batch.output_file_id, batch.error_file_id}
    assert {file.filename for file in by_id.values()} == {
        f"{batch.id}_output.jsonl",
        f"{batch.id}_error.jsonl",
    }
    assert {file.expires_at for file in by_id.values()} == {None}


async def test_the_expiry_of_an_output_counts_from_when_it_was_written(live: Live) -> None:
    batch = await live.run(
        [request("a")], output_expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert batch.output_file_id is not None
    file = await live.client.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 3600
    assert batch.completed_at is not None
    assert file.created_at <= batch.completed_at


async def test_a_refused_request_is_a_line_of_the_error_file_alone(live: Live) -> None:
    batch = await live.run([request("good"), request("bad", f"{BAD}"), request("last")])

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == counts(3, 2, 1)
    output = await live.lines(batch.output_file_id)
    assert [line["custom_id"] for line in output] == ["good", "last"]
    (failed,) = await live.lines(batch.error_file_id)
    assert (failed["custom_id"], failed["error"]) == ("bad", None)
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["type"] == "invalid_request_error"


async def test_a_batch_whose_requests_all_fail_completes_without_an_output(live: Live) -> None:
    batch = await live.run([request(str(n), f"{BAD}") for n in range(3)])

    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == counts(3, 0, 3)
    assert len(await live.lines(batch.error_file_id)) == 3


GOOD = request("good")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (jsonl([GOOD]) + b"not JSON\n", [("invalid_json_line", None, 2)]),
        (
            jsonl([GOOD, {}]),
            [
                ("missing_required_parameter", "custom_id", 2),
                ("missing_required_parameter", "method", 2),
                ("missing_required_parameter", "url", 2),
                ("missing_required_parameter", "body", 2),
            ],
        ),
        (jsonl([GOOD, request("b"), GOOD]), [("duplicate_custom_id", "custom_id", 3)]),
        (jsonl([GOOD | {"url": "/v1/embeddings"}]), [("invalid_url", "url", 1)]),
        (jsonl([GOOD | {"method": "GET"}]), [("invalid_method", "method", 1)]),
        (jsonl([request("a", model="nope")]), [("model_not_found", "body.model", 1)]),
        (jsonl([GOOD, request("b", stream=True)]), [("streaming_unsupported", "body.stream", 2)]),
        (
            jsonl([GOOD | {"body": {"model": "stand-in"}}]),
            [("invalid_request", "body.messages", 1)],
        ),
        (jsonl([GOOD | {"body": {"messages": []}}]), [("invalid_request", "body.model", 1)]),
    ],
)
async def test_an_input_that_is_wrong_fails_the_batch_before_anything_runs(
    live: Live, content: bytes, found: list[Any]
) -> None:
    batch = await live.run(content)

    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.failed_at is not None
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == counts(0, 0, 0)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(error.code, error.param, error.line) for error in batch.errors.data] == found
    assert all(error.message for error in batch.errors.data)
    assert live.standin.stats.received == 0


@pytest.mark.slow
async def test_50001_lines_are_too_many(live: Live) -> None:
    batch = await live.start(jsonl([request(str(n)) for n in range(50_001)]))

    batch = await live.finish(batch, seconds_a_look=0.001)

    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [error.code for error in batch.errors.data] == ["too_many_tasks"]


async def test_blank_lines_crlf_a_bom_and_a_missing_end_of_line_are_accepted(live: Live) -> None:
    one, other = jsonl([request("a")]).rstrip(), jsonl([request("b")]).rstrip()

    batch = await live.run(b"\xef\xbb\xbf\r\n" + one + b"\r\n\n" + other)

    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == counts(2, 2, 0)


class TestWithOneModelABatch:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"allow_mixed_models": False})

    async def test_a_second_model_fails_the_batch(self, live: Live) -> None:
        batch = await live.run([request("a"), request("b", model="other"), request("c")])

        assert batch.errors is not None
        assert batch.errors.data is not None
        (error,) = batch.errors.data
        assert (batch.status, error.code, error.line) == ("failed", "mismatched_model", 2)
        assert error.param == "body.model"


async def test_a_cancelled_batch_accounts_for_every_line(live: Live) -> None:
    done, hanging = [request(f"done-{n}") for n in range(3)], request("hangs", f"{HANG}")
    never = [request(f"never-{n}", f"{HANG}") for n in range(10)]
    lines = [*done, hanging, *never]
    batch = await live.until_answered(await live.start(lines), 3)

    cancelling = await live.client.batches.cancel(batch.id)
    cancelled = await live.finish(cancelling, seconds_a_look=100)

    assert (cancelling.status, cancelled.status) == ("cancelling", "cancelled")
    assert cancelling.cancelling_at is not None
    assert cancelled.cancelled_at is not None
    assert cancelled.cancelled_at >= cancelling.cancelling_at
    assert cancelled.request_counts is not None
    assert cancelled.request_counts.to_dict() == counts(14, 3, 0)
    output = await live.lines(cancelled.output_file_id)
    errors = await live.lines(cancelled.error_file_id)
    assert [line["custom_id"] for line in output] == [line["custom_id"] for line in done]
    assert [line["custom_id"] for line in errors] == [line["custom_id"] for line in lines[3:]]
    for line in errors:
        assert (line["response"], line["error"]["code"]) == (None, "batch_cancelled")
    assert await live.client.batches.cancel(batch.id) == cancelled


async def test_a_completed_batch_is_asked_only_once_to_be_cancelled(live: Live) -> None:
    batch = await live.run([request("a")])

    with pytest.raises(ConflictError) as refused:
        await live.client.with_options(max_retries=2).batches.cancel(batch.id)

    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert await live.client.batches.retrieve(batch.id) == batch


async def test_a_batch_that_is_late_expires_with_what_it_has(live: Live) -> None:
    lines = [*(request(f"done-{n}") for n in range(2)), request("late", f"{HANG}")]
    batch = await live.until_answered(await live.start(lines), 2)

    live.clock.turn(86_400)
    expired = await live.finish(batch)

    assert (expired.status, expired.expires_at) == ("expired", batch.created_at + 86_400)
    assert expired.expired_at is not None
    assert expired.expired_at >= batch.created_at + 86_400
    assert expired.request_counts is not None
    assert expired.request_counts.to_dict() == counts(3, 2, 0)
    assert len(await live.lines(expired.output_file_id)) == 2
    (late,) = await live.lines(expired.error_file_id)
    assert (late["custom_id"], late["error"]["code"]) == ("late", "batch_expired")


async def test_the_input_may_be_deleted_while_its_batch_runs(live: Live) -> None:
    batch = await live.start([request(str(n)) for n in range(50)])
    await live.client.files.delete(batch.input_file_id)

    batch = await live.finish(batch)

    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == counts(50, 50, 0)


async def test_a_batch_reads_a_file_that_came_in_parts(live: Live) -> None:
    content = jsonl([request(f"row-{n}") for n in range(30)])
    upload = await live.client.uploads.upload_file_chunked(
        file=content,
        filename="in.jsonl",
        bytes=len(content),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=1000,
    )
    assert upload.file is not None
    batch = await live.client.batches.create(
        input_file_id=upload.file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert len(await live.lines((await live.finish(batch)).output_file_id)) == 30


async def test_a_deleted_batch_leaves_the_others_and_its_files_alone(live: Live) -> None:
    first, second = await asyncio.gather(live.run([request("a")]), live.run([request("b")]))

    await live.client.delete(f"/batches/{first.id}", cast_to=object)

    assert [batch.id async for batch in live.client.batches.list()] == [second.id]
    assert len(await live.lines(first.output_file_id)) == 1
    third = await live.run([request("c")])
    assert [line["custom_id"] for line in await live.lines(third.output_file_id)] == ["c"]
