"""LiteLLM's SDK, told that we are OpenAI at another address."""

import time
from pathlib import Path
from typing import Any

import litellm
import openai
import pytest

from tests.clients.sums import CHAT_MODEL, KEY, answers_in, answers_to, sums

CHAT = f"openai/{CHAT_MODEL}"
EMBEDDING = "openai/all-MiniLM-L6-v2"
SUM = [{"role": "user", "content": "What is 2+2?"}]
_POLL_SECONDS = 0.05


@pytest.fixture
def us(base_url: str) -> dict[str, str]:
    """What every call for a file or a batch gets."""
    return {"custom_llm_provider": "openai", "api_base": base_url, "api_key": KEY}


@pytest.fixture
def model(base_url: str) -> dict[str, str]:
    """What every call of a model gets."""
    return {"api_base": base_url, "api_key": KEY}


def test_a_batch_goes_from_file_to_results(us: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(sums(5))
    with path.open("rb") as opened:
        file = litellm.create_file(file=opened, purpose="batch", **us)

    batch = _completed(_start(file.id, us, metadata={"team": "x"}), us)

    output = litellm.file_content(file_id=batch.output_file_id, **us)
    assert answers_in(output.content) == answers_to(5)
    assert batch.metadata == {"team": "x"}
    assert batch.model == CHAT_MODEL
    assert batch.usage.input_tokens > 0
    assert batch.id in [each.id for each in litellm.list_batches(limit=100, **us).data]


def test_a_batch_is_cancelled(us: dict[str, str]) -> None:
    file = litellm.create_file(file=("in.jsonl", sums(500)), purpose="batch", **us)
    batch = _start(file.id, us)

    assert litellm.cancel_batch(batch_id=batch.id, **us).status == "cancelling"

    assert _at_its_end(batch, us).status == "cancelled"


def test_a_file_is_listed_and_deleted(us: dict[str, str]) -> None:
    file = litellm.create_file(file=("in.jsonl", sums(1)), purpose="batch", **us)
    assert file.id in [each.id for each in litellm.file_list(purpose="batch", **us)]
    assert litellm.file_retrieve(file_id=file.id, **us).bytes == len(sums(1))

    assert litellm.file_delete(file_id=file.id, **us).deleted

    assert file.id not in [each.id for each in litellm.file_list(purpose="batch", **us)]
    with pytest.raises(openai.NotFoundError):  # LiteLLM has none of its own for files
        litellm.file_retrieve(file_id=file.id, **us)


def test_a_completion_has_its_text_and_usage(model: dict[str, str]) -> None:
    answer = litellm.completion(model=CHAT, messages=SUM, temperature=0, **model)

    assert answer.choices[0].message.content == "4"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_completion_is_streamed(model: dict[str, str]) -> None:
    stream = await litellm.acompletion(
        model=CHAT,
        messages=[{"role": "user", "content": "Count to 5."}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        **model,
    )
    chunks = [chunk async for chunk in stream]

    whole = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == "1, 2, 3, 4, 5"
    assert len(chunks) > 5
    assert whole.usage.completion_tokens > 5


def test_texts_become_vectors(model: dict[str, str]) -> None:
    texts = ["A dog runs.", "A puppy is running.", "Interest rates rose."]

    answer = litellm.embedding(model=EMBEDDING, input=texts, **model)

    dog, puppy, bank = (each["embedding"] for each in answer.data)
    assert _likeness(dog, puppy) > 0.5 > _likeness(dog, bank)
    assert answer.usage.prompt_tokens > 0


def test_errors_are_those_that_litellm_has_for_them(model: dict[str, str]) -> None:
    for asked, expected in (
        ({"model": "openai/nobody", "messages": SUM}, litellm.NotFoundError),
        ({"model": CHAT, "messages": SUM, "temperature": 3}, litellm.BadRequestError),
        (
            {"model": CHAT, "messages": [{"role": "user", "content": "long " * 2_000}]},
            litellm.ContextWindowExceededError,
        ),
    ):
        with pytest.raises(expected):
            litellm.completion(**asked, **model)


def test_a_wrong_key_is_what_litellm_calls_one(model: dict[str, str]) -> None:
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(model=CHAT, messages=SUM, **model | {"api_key": "sk-wrong"})


def _start(file_id: str, us: dict[str, str], **more: Any) -> Any:
    return litellm.create_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=file_id,
        **more,
        **us,
    )


def _completed(batch: Any, us: dict[str, str]) -> Any:
    batch = _at_its_end(batch, us)
    assert batch.status == "completed", batch
    return batch


def _at_its_end(batch: Any, us: dict[str, str]) -> Any:
    while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
        time.sleep(_POLL_SECONDS)
        batch = litellm.retrieve_batch(batch_id=batch.id, **us)
    return batch


def _likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
