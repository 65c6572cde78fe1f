"""A batch that is over goes on in a new one: from upload to download, over the stand-in."""

from typing import Any

import pytest
from openai import ConflictError, NotFoundError
from openai.types import Batch

from batch_api.schemas.ids import line_id
from tests.contract.conftest import Live, jsonl, request
from tests.standin import HANG, Fault, answer_to

REFUSED = Fault(status=400)
ONCE_REFUSED = Fault(status=400, times=1)
HANGS_ONCE = Fault(ending="hang", times=1)


async def retry(live: Live, batch: Batch, *, key: str | None = None) -> Batch:
    headers = {} if key is None else {"idempotency-key": key}
    return await live.client.post(
        f"/batches/{batch.id}/retry", cast_to=Batch, options={"headers": headers}
    )


def continues(batch: Batch) -> Any:
    return batch.to_dict()["continues"]


def answers(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (
            line["custom_id"],
            line["response"]["body"]["choices"][0]["message"]["content"],
        )
        for line in lines
    ]


async def test_failed_lines_are_run_again_and_all_others_keep_their_answers(live: Live) -> None:
    first = await live.run(
        [
            request("a", "one two"),
            request("b", f"{ONCE_REFUSED}second time"),
            request("c", f"{REFUSED}never"),
            request("d", "three four five"),
        ],
        metadata={"job": "nightly"},
    )
    assert first.request_counts is not None
    assert first.request_counts.failed == 2
    assert continues(first) is None

    second = await live.finish(await retry(live, first))

    assert second.id != first.id
    assert continues(second) == first.id
    assert second.metadata == {"job": "nightly"}
    assert (second.endpoint, second.input_file_id) == (first.endpoint, first.input_file_id)
    assert second.request_counts is not None
    assert second.request_counts.to_dict() == {"total": 4, "completed": 3, "failed": 1}
    before, after = await live.lines(first.output_file_id), await live.lines(second.output_file_id)
    assert answers(after) == [
        ("a", answer_to("one two")),
        ("b", answer_to("second time")),
        ("d", answer_to("three four five")),
    ]
    assert [after[0], after[2]] == before
    assert after[1]["id"] == line_id(second.id, 2)
    assert [line["custom_id"] for line in await live.lines(second.error_file_id)] == ["c"]
    assert live.standin.stats.received == 6
    # The stand-in counts words, read and written: those of the answers taken over too.
    assert second.usage is not None
    assert (second.usage.input_tokens, second.usage.output_tokens) == (7, 7)
    assert second.model == "stand-in"


async def test_an_expired_batch_goes_on_where_it_stopped(live: Live) -> None:
    stuck = [request(f"stuck-{n}", f"{HANGS_ONCE}{n}") for n in range(3)]
    lines = [request("a"), *stuck, request("z")]
    first = await live.until_answered(await live.start(lines), 2)
    live.clock.turn(24 * 3600)
    first = await live.finish(first)
    assert first.status == "expired"

    second = await live.finish(await retry(live, first))

    assert second.status == "completed"
    assert second.expires_at == second.created_at + 24 * 3600
    found = await live.lines(second.output_file_id)
    assert [line["custom_id"] for line in found] == [line["custom_id"] for line in lines]
    assert [found[0], found[-1]] == await live.lines(first.output_file_id)


async def test_a_cancelled_batch_goes_on_in_a_chain_of_retries(live: Live) -> None:
    lines = [request("a"), request("b", f"{Fault(status=400, times=2)}b"), request("c")]
    first = await live.start(lines)
    first = await live.finish(await live.client.batches.cancel(first.id), seconds_a_look=100)
    assert first.status == "cancelled"

    second = await live.finish(await retry(live, first))
    third = await live.finish(await retry(live, second))
    fourth = await live.finish(await retry(live, third)) if third.error_file_id else third

    found = answers(await live.lines(fourth.output_file_id))
    assert found == [(id, answer_to(id if id == "b" else "hi")) for id in "abc"]
    assert continues(third) == second.id
    assert fourth.error_file_id is None


async def test_the_same_call_with_the_same_key_gives_the_same_batch(live: Live) -> None:
    first = await live.run([request("a", f"{REFUSED}no")])

    once = await retry(live, first, key="k")
    again = await retry(live, first, key="k")
    other = await retry(live, first, key="other")

    assert once.id == again.id != other.id


@pytest.mark.parametrize("deleted", ["input", "output"])
async def test_without_a_file_that_it_needs_a_batch_is_not_retried(
    live: Live, deleted: str
) -> None:
    first = await live.run([request("a"), request("b", f"{REFUSED}no")])
    id = first.input_file_id if deleted == "input" else first.output_file_id
    assert id is not None
    await live.client.files.delete(id)

    with pytest.raises(ConflictError, match=f"its file '{id}' was deleted"):
        await retry(live, first)


async def test_files_that_are_deleted_after_the_call_are_held_until_the_end(live: Live) -> None:
    first = await live.run([request("a"), request("b", f"{ONCE_REFUSED}b")])
    assert first.output_file_id is not None
    assert first.error_file_id is not None
    kept = await live.lines(first.output_file_id)

    second = await retry(live, first)
    for id in (first.input_file_id, first.output_file_id, first.error_file_id):
        await live.client.files.delete(id)
    await live.client.delete(f"/batches/{first.id}", cast_to=object)
    second = await live.finish(second)

    found = await live.lines(second.output_file_id)
    assert [line["custom_id"] for line in found] == ["a", "b"]
    assert found[0] == kept[0]
    with pytest.raises(NotFoundError):
        await live.client.files.content(first.output_file_id)


async def test_a_batch_that_runs_or_has_every_answer_is_not_retried(live: Live) -> None:
    running = await live.start([request("a", f"{HANG}a")])
    done = await live.run([request("b")])
    invalid = await live.run([request("c", model="unknown")])

    for batch, reason in (
        (running, "Cannot retry a batch with status"),
        (done, "nothing to retry"),
        (invalid, "Cannot retry a batch with status 'failed'"),
    ):
        with pytest.raises(ConflictError, match=reason) as refused:
            await retry(live, batch)
        assert refused.value.response.headers["x-should-retry"] == "false"
    await live.client.batches.cancel(running.id)


async def test_an_unknown_batch_is_not_found(live: Live) -> None:
    for path in ("retry", "results", "lines"):
        call = live.client.post if path == "retry" else live.client.get
        with pytest.raises(NotFoundError, match="No batch found with id 'batch_1'"):
            await call(f"/batches/batch_1/{path}", cast_to=object)


async def test_a_batch_that_was_never_read_has_nothing_to_retry(live: Live) -> None:
    live.standin.models_fault = Fault(status=503)
    first = await live.start(jsonl([request("a")]) + b"no JSON\n")
    first = await live.finish(await live.client.batches.cancel(first.id))
    assert (first.status, first.request_counts and first.request_counts.total) == ("cancelled", 0)

    with pytest.raises(ConflictError, match="has no lines: there is nothing to retry"):
        await retry(live, first)


@pytest.mark.parametrize("deleted", ["output", "error"])
async def test_results_of_which_a_file_was_deleted_say_which(live: Live, deleted: str) -> None:
    first = await live.run([request("a"), request("b", f"{REFUSED}no")])
    ids = {"output": first.output_file_id, "error": first.error_file_id}
    gone = ids.pop(deleted)
    (left,) = ids.values()
    assert gone is not None
    await live.client.files.delete(gone)

    with pytest.raises(NotFoundError) as missing:
        await live.client.get(f"/batches/{first.id}/results", cast_to=object)

    assert f"the {deleted} file '{gone}' was deleted, or has expired" in missing.value.message
    assert await live.lines(left)
