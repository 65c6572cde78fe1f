"""`/v1/embeddings` as clients use it, with a real model."""

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from httpx2 import Request
from openai import AsyncOpenAI, BadRequestError, DefaultAsyncHttpxClient, NotFoundError

from batch_api.engine.embedder import Embedder
from tests.minilm import DIMENSIONS, MAX_TOKENS, MINILM, SENTENCES
from tests.worker.embedding import EmbeddingWorker, embedding
from tests.worker.serving import MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[EmbeddingWorker]:
    async with embedding(Embedder.load(str(MINILM), device="cpu", dtype="float32")) as it:
        yield it


async def _create(worker: EmbeddingWorker, input: Any, **options: Any) -> Any:
    return await worker.client.embeddings.create(model=MODEL, input=input, **options)


async def test_the_sdk_asks_for_base64_and_gives_floats_equal_to_those_asked_for(
    worker: EmbeddingWorker,
) -> None:
    asked: list[Any] = []

    async def on_request(request: Request) -> None:
        asked.append(json.loads(await request.aread()))

    async with (
        DefaultAsyncHttpxClient(event_hooks={"request": [on_request]}) as http,
        AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="none", http_client=http) as client,
    ):
        decoded = await client.embeddings.create(model=MODEL, input=["a", "b"])
    floats = await _create(worker, ["a", "b"], encoding_format="float")

    assert asked[0]["encoding_format"] == "base64"
    assert [each.index for each in decoded.data] == [0, 1]
    for one, other in zip(decoded.data, floats.data, strict=True):
        assert len(one.embedding) == DIMENSIONS
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert decoded.data[0].embedding != decoded.data[1].embedding


async def test_the_answer_has_openai_s_shape_and_floats_unless_asked(
    worker: EmbeddingWorker,
) -> None:
    status, body = await worker.post(input="The food was delicious.")

    assert status == 200
    vector = body["data"][0].pop("embedding")
    assert len(vector) == DIMENSIONS
    assert all(isinstance(number, float) for number in vector)
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}],
        "model": MODEL,
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


async def test_base64_is_little_endian_float32(worker: EmbeddingWorker) -> None:
    _, floats = await worker.post(input="a")
    _, packed = await worker.post(input="a", encoding_format="base64")

    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack(f"<{DIMENSIONS}f", raw)) == floats["data"][0]["embedding"]


async def test_token_arrays_give_the_vectors_of_their_text(worker: EmbeddingWorker) -> None:
    ids = worker.embedder.encode(SENTENCES)

    by_text = await _create(worker, SENTENCES)
    by_ids = await _create(worker, ids)
    one = await _create(worker, ids[0])

    for wanted, given in zip(by_text.data, by_ids.data, strict=True):
        assert given.embedding == pytest.approx(wanted.embedding, abs=1e-5)
    assert one.data[0].embedding == pytest.approx(by_text.data[0].embedding, abs=1e-5)
    assert by_ids.usage == by_text.usage


async def test_usage_counts_the_tokens_of_all_inputs(worker: EmbeddingWorker) -> None:
    answer = await _create(worker, SENTENCES)

    tokens = sum(map(len, worker.embedder.encode(SENTENCES)))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


async def test_fewer_dimensions_have_length_one_again(worker: EmbeddingWorker) -> None:
    few = (await _create(worker, "a", dimensions=8)).data[0].embedding
    all = (await _create(worker, "a", dimensions=DIMENSIONS)).data[0].embedding

    assert sum(number**2 for number in few) == pytest.approx(1, abs=1e-6)
    assert few == pytest.approx([number * few[0] / all[0] for number in all[:8]], abs=1e-5)


async def test_a_null_is_absent_and_user_is_ignored(worker: EmbeddingWorker) -> None:
    status, body = await worker.post(input="a", encoding_format=None, dimensions=None, user="me")

    assert status == 200
    assert len(body["data"][0]["embedding"]) == DIMENSIONS


async def test_2048_inputs_are_answered_in_order_and_one_more_is_refused(
    worker: EmbeddingWorker,
) -> None:
    inputs = [[101, 2000 + n, 102] for n in range(2048)]

    answer = await _create(worker, inputs)

    assert [each.index for each in answer.data] == list(range(2048))
    alone = await _create(worker, inputs[2000])
    assert answer.data[2000].embedding == pytest.approx(alone.data[0].embedding, abs=1e-5)
    with pytest.raises(BadRequestError) as caught:
        await _create(worker, [*inputs, [101]])
    assert (caught.value.param, caught.value.code) == ("input", "array_above_max_length")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "string_below_min_length"),
        ({"input": []}, "input", "empty_array"),
        ({"input": ["a", ""]}, "input[1]", "string_below_min_length"),
        ({"input": [[1], []]}, "input[1]", "empty_array"),
        ({"input": 7}, "input", "invalid_type"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": ["a", 7]}, "input[1]", "invalid_type"),
        ({"input": [7, "a"]}, "input[1]", "invalid_type"),
        ({"input": [[7, "a"]]}, "input[0][1]", "invalid_type"),
        ({"input": ["a", None]}, "input[1]", "invalid_type"),
        ({"input": [7, True]}, "input[1]", "invalid_type"),
        ({"input": [-1]}, "input[0]", "integer_below_min_value"),
        ({"input": [30522]}, "input", "invalid_value"),
        ({"input": [[7], [10**30]]}, "input[1]", "invalid_value"),
        ({"input": "a", "dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"input": "a", "dimensions": 385}, "dimensions", "integer_above_max_value"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "invalid_type"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
    ],
)
async def test_what_is_wrong_is_a_400_that_names_it(
    worker: EmbeddingWorker, body: dict[str, Any], param: str, code: str
) -> None:
    status, answer = await worker.post(**body)

    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, param, code)


async def test_an_input_that_is_too_long_is_named_and_never_cut(worker: EmbeddingWorker) -> None:
    fits, too_long = "dog " * (MAX_TOKENS - 2), "dog " * (MAX_TOKENS - 1)

    assert (await _create(worker, fits)).usage.prompt_tokens == MAX_TOKENS
    with pytest.raises(BadRequestError) as caught:
        await _create(worker, ["short", fits, too_long])

    assert (caught.value.param, caught.value.code) == ("input[2]", "context_length_exceeded")
    assert f"length is {MAX_TOKENS} tokens, but 'input[2]' has {MAX_TOKENS + 1}" in str(
        caught.value
    )


async def test_another_model_is_404(worker: EmbeddingWorker) -> None:
    with pytest.raises(NotFoundError) as caught:
        await worker.client.embeddings.create(model="other", input="a")

    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
async def test_the_routes_of_generating_models_are_404_and_say_why(
    worker: EmbeddingWorker, path: str
) -> None:
    async with worker.session.post(path, json={"model": MODEL}) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["type"]) == (404, "invalid_request_error")
    assert f"'{MODEL}', makes embeddings: it answers at /v1/embeddings" in error["message"]


async def test_health_and_the_models_tell_the_task(worker: EmbeddingWorker) -> None:
    async with worker.session.get("/health") as answer:
        health = await answer.json()
    (model,) = [each async for each in worker.client.models.list()]

    assert (health["task"], health["ready"], health["max_length"]) == ("embed", True, MAX_TOKENS)
    assert health["memory_bytes"] > 80_000_000
    assert model.to_dict()["task"] == "embed"
    assert model.to_dict()["max_model_len"] == MAX_TOKENS
