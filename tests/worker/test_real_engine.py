"""The whole worker, as `batch-api worker` runs it, with the bundled model."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from transformers import AutoTokenizer

from batch_api.settings import DEMO_MODEL, DEMO_MODEL_NAME
from tests.worker.process import WorkerProcess

pytestmark = pytest.mark.slow

NAME = DEMO_MODEL_NAME
MESSAGES: Any = [{"role": "user", "content": "Count to 12."}]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("worker")
    with WorkerProcess(folder, "--model", str(DEMO_MODEL), "--max-length", "256") as process:
        yield process
        assert process.terminate() == 0


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0) as client:
        yield client


STORY = [{"role": "user", "content": "xqz vvw tell Zorblat 7% #! nn"}]


def ask(client: OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(
        **{"model": NAME, "messages": MESSAGES, "temperature": 0, **options}
    )


def test_the_bundled_model_answers(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "What is 2+2?"}]

    (choice,) = ask(client, messages=messages).choices

    assert choice.finish_reason == "stop"
    assert choice.message.content == "4"


def test_usage_is_exact(client: OpenAI) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    prompt = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)

    answer = ask(client)

    text = answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(tokenizer.encode(prompt))
    assert answer.usage.completion_tokens == len(tokenizer.encode(text)) + 1  # the end token
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_a_limit_is_kept_to_the_token(client: OpenAI) -> None:
    answer = ask(client, max_tokens=3)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_past_the_end_token_if_asked(client: OpenAI) -> None:
    answer = ask(client, max_tokens=100, extra_body={"ignore_eos": True})

    assert answer.usage.completion_tokens == 100


def test_streamed_text_and_usage_equal_the_whole_answer_s(client: OpenAI) -> None:
    whole = ask(client)

    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert last.usage == whole.usage


def test_stop_strings_do_not_show(client: OpenAI) -> None:
    whole = ask(client).choices[0].message.content

    cut = ask(client, stop=["7", "5"]).choices[0]

    assert cut.finish_reason == "stop"
    assert cut.message.content == whole.partition("5")[0]


def test_a_seed_gives_the_same_answer_alone_and_in_a_crowd(client: OpenAI) -> None:
    def text(seed: int) -> str:
        answer = ask(client, temperature=2, seed=seed, max_tokens=60, messages=STORY)
        return str(answer.choices[0].message.content)

    alone = text(7)
    with ThreadPoolExecutor(8) as threads:
        crowd = list(threads.map(text, [1, 2, 3, 7, 4, 5, 6, 7]))

    assert crowd[3] == crowd[7] == alone
    assert len(set(crowd)) > 1


def test_many_requests_at_once_are_answered_as_one_by_one(client: OpenAI) -> None:
    def text(n: int) -> str:
        messages = [{"role": "user", "content": f"Count to {n % 6 + 1}."}]
        return str(ask(client, messages=messages, max_tokens=12).choices[0].message.content)

    one_by_one = [text(n) for n in range(6)]
    with ThreadPoolExecutor(50) as threads:
        together = list(threads.map(text, range(100)))

    assert together == [one_by_one[n % 6] for n in range(100)]


def test_what_does_not_fit_is_refused(client: OpenAI, worker: WorkerProcess) -> None:
    with pytest.raises(BadRequestError, match="This model's maximum context length is 256 tokens"):
        ask(client, messages=[{"role": "user", "content": "2+2? " * 500}])
    assert json.loads(worker.fetch("/health"))["status"] == "ready"


def test_health_tells_the_device_and_the_memory(worker: WorkerProcess) -> None:
    health = json.loads(worker.fetch("/health"))

    assert health["device"]
    assert health["memory_bytes"] > 0
    assert (health["running"], health["waiting"]) == (0, 0)
