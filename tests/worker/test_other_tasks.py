import pytest

from tests.worker.serving import MODEL, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_generating_model_has_no_embeddings_and_says_so(worker: Worker) -> None:
    body = {"model": MODEL, "input": "hi"}

    async with worker.session.post("/v1/embeddings", json=body) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["type"]) == (404, "invalid_request_error")
    assert (error["param"], error["code"]) == (None, "model_not_found")
    assert f"'{MODEL}', generates text: it answers at /v1/chat/completions" in error["message"]


async def test_a_model_that_is_not_here_is_not_found_on_other_routes_either(worker: Worker) -> None:
    body = {"model": "nobody", "input": "hi"}

    async with worker.session.post("/v1/embeddings", json=body) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["code"]) == (404, "model_not_found")
    assert "'nobody'" in error["message"]
