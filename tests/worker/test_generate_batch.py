"""Many simple queries in one call to a worker, from the fake engine."""

from typing import Any

import pytest

from batch_api.engine.sequence import Priority
from tests.worker.fake_engine import FakeEngine
from tests.worker.serving import Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


def query(chat_id: str, user_prompt: str) -> dict[str, str]:
    return {"chat_id": chat_id, "system_prompt": "Helpful", "user_prompt": user_prompt}


async def ask(worker: Worker, body: Any, **headers: str) -> tuple[int, Any]:
    async with worker.session.post("/generate_batch", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_query_is_answered(worker: Worker) -> None:
    assert await ask(worker, {"queries": [query("1", "say four")]}) == (
        200,
        {"partial_success": False, "responses": [{"chat_id": "1", "response": "four"}]},
    )


async def test_a_bad_query_spoils_no_good_one(worker: Worker) -> None:
    queries = [query("1", "say one"), query("2", ""), {**query("3", "say x"), "model": "other"}]

    status, answer = await ask(worker, {"queries": queries})

    assert (status, answer["partial_success"]) == (200, True)
    first, second, third = answer["responses"]
    assert first == {"chat_id": "1", "response": "one"}
    assert (second["chat_id"], "'user_prompt'" in second["error"]) == ("2", True)
    assert "The model 'other' does not exist here" in third["error"]


async def test_the_queries_share_the_engine_and_keep_their_order(
    worker: Worker, engine: FakeEngine
) -> None:
    texts = [f"number {n}" for n in range(100)]

    status, answer = await ask(
        worker,
        {"queries": [query(str(n), f"say {text}") for n, text in enumerate(texts)]},
        **{"x-batch-api-priority": "batch"},
    )

    assert status == 200
    assert [it["response"] for it in answer["responses"]] == texts
    assert len(engine.begun) == 100
    assert {sequence.priority for sequence in engine.begun} == {Priority.BATCH}


@pytest.mark.parametrize("body", [{}, {"queries": []}, {"queries": "no"}, []])
async def test_a_call_without_queries_is_refused(worker: Worker, body: Any) -> None:
    status, answer = await ask(worker, body)

    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
