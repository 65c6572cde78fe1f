"""Version 2 of OpenAI's SDK, on which LiteLLM and much else still rests."""

import time
from collections.abc import Iterator

import openai
import pytest
from openai import BadRequestError, OpenAI
from openai.types import Batch

from tests.clients.sums import CHAT_MODEL, KEY, answers_in, answers_to, sums

_POLL_SECONDS = 0.05


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[OpenAI]:
    assert openai.VERSION.startswith("2.")
    with OpenAI(base_url=base_url, api_key=KEY) as client:
        yield client


def test_a_batch_goes_from_file_to_results(client: OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", sums(5)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    batch = _completed(client, batch)

    assert batch.output_file_id is not None
    output = client.files.content(batch.output_file_id)
    assert answers_in(output.content) == answers_to(5)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    assert batch.id in [each.id for each in client.batches.list(limit=1)]
    assert client.files.delete(batch.output_file_id).deleted


def test_a_chat_is_streamed_with_its_usage_at_the_end(client: OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Count to 5."}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )

    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == "1, 2, 3, 4, 5"
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0


def test_an_error_tells_its_code_and_its_param(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=CHAT_MODEL, messages=[{"role": "user", "content": "hi"}], temperature=3
        )

    assert (refused.value.code, refused.value.param) == ("decimal_above_max_value", "temperature")


def _completed(client: OpenAI, batch: Batch) -> Batch:
    while batch.status != "completed":
        assert batch.status in ("validating", "in_progress", "finalizing"), batch.to_json()
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
    return batch
