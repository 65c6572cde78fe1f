"""Embeddings as a user meets them: `batch-api serve`, a real worker, a real model, the real SDK."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from openai import OpenAI
from openai.types import Batch, CreateEmbeddingResponse

from batch_api.settings import DEMO_MODEL
from tests.minilm import DIMENSIONS, MAX_TOKENS, NAME, SENTENCES, linked
from tests.server import Server
from tests.worker.process import WorkerProcess

pytestmark = pytest.mark.slow

ENDPOINT: Literal["/v1/embeddings"] = "/v1/embeddings"
_POLL_SECONDS = 0.1
_SECONDS = 60


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("embeddings")
    settings = {"model": linked(folder), "task": "embed", "dtype": "float32"}
    with Server(folder, settings=settings) as server, server.client(max_retries=20) as client:
        yield client


def test_a_batch_gets_floats_unless_a_line_asks_for_base64(client: OpenAI) -> None:
    as_floats = [_line(f"float-{n}", input=text) for n, text in enumerate(SENTENCES)]
    as_base64 = [
        _line(f"base64-{n}", input=text, encoding_format="base64")
        for n, text in enumerate(SENTENCES)
    ]

    batch = _run(client, as_floats + as_base64)

    answered = _content(client, batch.output_file_id)
    assert [line["custom_id"] for line in answered] == [
        line["custom_id"] for line in as_floats + as_base64
    ]
    direct = client.embeddings.create(model=NAME, input=SENTENCES)
    floats, packed = answered[: len(SENTENCES)], answered[len(SENTENCES) :]
    for wanted, one, other in zip(direct.data, floats, packed, strict=True):
        vector, encoded = _embedding(one), _embedding(other)
        assert isinstance(vector, list)
        assert isinstance(encoded, str)
        np.testing.assert_allclose(vector, wanted.embedding, atol=1e-5)
        np.testing.assert_allclose(_decoded(encoded), vector, atol=1e-5)


def test_a_batch_tells_its_model_and_its_usage_and_which_line_failed(client: OpenAI) -> None:
    lines = [_line(f"several-{n}", input=SENTENCES, dimensions=64) for n in range(20)]
    bad = _line("bad", input=["fits", "dog " * 2 * MAX_TOKENS])

    batch = _run(client, [*lines[:10], bad, *lines[10:]])

    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 21, "completed": 20, "failed": 1}
    answers = [
        CreateEmbeddingResponse.model_validate(line["response"]["body"])
        for line in _content(client, batch.output_file_id)
    ]
    assert {len(each.embedding) for answer in answers for each in answer.data} == {64}
    assert {len(answer.data) for answer in answers} == {len(SENTENCES)}
    assert batch.model == NAME
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(answer.usage.prompt_tokens for answer in answers)
    assert (batch.usage.output_tokens, batch.usage.total_tokens) == (0, batch.usage.input_tokens)
    (failed,) = _content(client, batch.error_file_id)
    error = failed["response"]["body"]["error"]
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("bad", 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input[1]")


def test_with_a_chat_and_an_embedding_worker_both_routes_work(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "embed").mkdir()
    embed = ("--model", str(linked(tmp_path)), "--task", "embed")
    with (
        WorkerProcess(tmp_path / "chat", "--model", str(DEMO_MODEL)) as chats,
        WorkerProcess(tmp_path / "embed", *embed) as embeds,
        Server(tmp_path, chats.url, embeds.url) as server,
        server.client(max_retries=20) as client,
    ):
        assert {model.id for model in client.models.list()} == {"demo", NAME}
        for _ in range(3):  # whichever of them is asked first
            vector = client.embeddings.create(model=NAME, input="What is 2+2?").data[0].embedding
            assert len(vector) == DIMENSIONS
            assert _chat(client) == "4"
        batch = _run(client, [_line(f"line-{n}", input=f"number {n}") for n in range(50)])

    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 50, "completed": 50, "failed": 0}


def _chat(client: OpenAI) -> str | None:
    completion = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "What is 2+2?"}], temperature=0
    )
    return completion.choices[0].message.content


def _line(custom_id: str, **body: Any) -> dict[str, Any]:
    body = {"model": NAME, **body}
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def _run(client: OpenAI, lines: list[dict[str, Any]]) -> Batch:
    """Until it has completed."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("texts.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    deadline = time.monotonic() + _SECONDS
    while (batch := client.batches.retrieve(batch.id)).status != "completed":
        assert batch.status in ("validating", "in_progress", "finalizing"), batch.to_json()
        assert time.monotonic() < deadline
        time.sleep(_POLL_SECONDS)
    return batch


def _content(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).content.splitlines()]


def _embedding(line: dict[str, Any]) -> list[float] | str:
    (item,) = line["response"]["body"]["data"]
    embedding: list[float] | str = item["embedding"]
    return embedding


def _decoded(encoded: str) -> Any:
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4")
