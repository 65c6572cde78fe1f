"""`/metrics` of a worker: what it counts is what was done, under the names that vLLM gives it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
import pytest_asyncio
from openai import OpenAI

from batch_api.engine.embedder import Embedder
from tests.minilm import MINILM
from tests.scraping import Scrape
from tests.worker.embedding import embedding
from tests.worker.fake_engine import FakeEngine
from tests.worker.serving import CHAT, MODEL, Worker, serving, until

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

_VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:request_prefill_time_seconds_bucket",
    "vllm:request_decode_time_seconds_bucket",
    "vllm:request_prompt_tokens_bucket",
    "vllm:request_generation_tokens_bucket",
}


@pytest_asyncio.fixture
async def fresh() -> AsyncIterator[Worker]:
    """That has done nothing yet."""
    async with serving(FakeEngine()) as worker:
        yield worker


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(str(MINILM), device="cpu", dtype="float32")


async def _scrape(worker: Worker) -> Scrape:
    async with worker.session.get("/metrics") as answer:
        assert answer.content_type == "text/plain"
        return Scrape.of(await answer.text())


async def test_the_names_and_labels_are_those_of_vllm(fresh: Worker) -> None:
    scrape = await _scrape(fresh)

    assert scrape.names >= _VLLM
    for sample in scrape.samples:
        if sample.name.startswith("vllm:"):
            assert sample.labels["model_name"] == MODEL
            assert sample.labels["engine"] == "0"


async def test_tokens_and_ends_are_counted_as_the_answers_tell_them(fresh: Worker) -> None:
    prompts = answers = 0
    for content, options in (("say one two three", {}), ("count", {"max_tokens": 5})):
        async with await fresh.say(content, **options) as response:
            usage = (await response.json())["usage"]
        prompts += usage["prompt_tokens"]
        answers += usage["completion_tokens"]

    scrape = await _scrape(fresh)

    assert scrape.value("vllm:prompt_tokens_total") == prompts
    assert scrape.value("vllm:generation_tokens_total") == answers == 9
    assert scrape.value("vllm:request_success_total", finished_reason="stop") == 1
    assert scrape.value("vllm:request_success_total", finished_reason="length") == 1
    assert scrape.value("vllm:request_success_total", finished_reason="abort") == 0
    for each in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
        assert scrape.value(f"vllm:{each}_count") == 2
    assert scrape.value("vllm:inter_token_latency_seconds_count") == answers - 2
    assert scrape.value("vllm:request_generation_tokens_sum") == answers
    first = scrape.value("vllm:time_to_first_token_seconds_sum")
    assert 0 < first < scrape.value("vllm:e2e_request_latency_seconds_sum")


async def test_each_of_several_answers_to_one_prompt_is_counted(fresh: Worker) -> None:
    async with await fresh.say("say one", n=3) as response:
        await response.read()

    scrape = await _scrape(fresh)

    assert scrape.value("vllm:request_success_total", finished_reason="stop") == 3
    assert scrape.value("vllm:time_to_first_token_seconds_count") == 3


async def test_what_runs_and_waits_is_told_while_it_does(fresh: Worker) -> None:
    asked = [asyncio.create_task(fresh.say("count")) for _ in range(3)]
    await fresh.wait_for(running=2, waiting=1)

    busy = await _scrape(fresh)
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)
    await fresh.wait_for(running=0)
    idle = await _scrape(fresh)

    assert busy.value("vllm:num_requests_running") == 2
    assert busy.value("vllm:num_requests_waiting") == 1
    assert busy.value("vllm:kv_cache_usage_perc") == 1
    assert idle.value("vllm:num_requests_running") == 0
    assert idle.value("vllm:kv_cache_usage_perc") == 0
    assert idle.value("vllm:request_success_total", finished_reason="abort") == 3
    assert idle.value("vllm:e2e_request_latency_seconds_count") == 0


@pytest.mark.parametrize("content", ["does not fit", "break"])
async def test_what_the_engine_refuses_or_dies_with_is_no_abort(content: str) -> None:
    async with serving(FakeEngine()) as worker:
        async with await worker.say(content) as answer:
            assert answer.status >= 400
        scrape = await _scrape(worker)

    ended = "vllm:request_success_total"
    assert scrape.value(ended, finished_reason="abort") == 0
    assert scrape.value(ended, finished_reason="error") == 1


async def test_requests_are_counted_by_the_template_of_their_route(fresh: Worker) -> None:
    async with await fresh.say("say one") as response:
        await response.read()
    for path in ("/v1/models/a", "/v1/models/b/c", "/nothing/1", "/nothing/2"):
        async with fresh.session.get(path) as response:
            await response.read()
    async with fresh.session.request("PROPFIND", "/v1/models") as response:
        await response.read()

    scrape = await _scrape(fresh)

    requests = "batch_api_http_requests_total"
    assert scrape.value(requests, method="POST", route=CHAT, status="200") == 1
    assert scrape.value(requests, method="GET", route="/v1/models/{model:path}", status="404") == 2
    assert scrape.value(requests, method="GET", route="other", status="404") == 2
    assert scrape.value(requests, method="other") == 1
    assert scrape.value("batch_api_http_request_duration_seconds_count", route=CHAT) == 1
    assert not scrape.all("batch_api_http_first_event_seconds_count", route=CHAT)


async def test_the_first_event_of_a_stream_is_timed(fresh: Worker) -> None:
    async with await fresh.say("say one two", stream=True) as response:
        await response.read()

    scrape = await _scrape(fresh)

    assert scrape.value("batch_api_http_first_event_seconds_count", route=CHAT) == 1


async def test_a_client_that_leaves_before_its_answer_is_counted_too(fresh: Worker) -> None:
    asked = asyncio.create_task(fresh.say("count"))
    await fresh.wait_for(running=1)
    asked.cancel()
    await fresh.wait_for(running=0)

    scrape = await _scrape(fresh)
    requests = {"method": "POST", "route": CHAT, "status": "499"}
    assert scrape.value("batch_api_http_requests_total", **requests) == 1


async def test_a_worker_that_loads_says_so() -> None:
    engine, may_load = FakeEngine(), threading.Event()

    def load() -> "Engine":
        may_load.wait()
        return engine.as_engine()

    async with serving(engine, load=load) as worker:
        before = await _scrape(worker)
        may_load.set()
        await until(lambda: worker.thread.engine is not None)
        after = await _scrape(worker)

    assert before.value("batch_api_worker_ready") == 0
    assert before.value("vllm:kv_cache_usage_perc") == 0
    assert after.value("batch_api_worker_ready") == 1


async def test_the_process_tells_its_memory_time_and_files(fresh: Worker) -> None:
    scrape = await _scrape(fresh)

    assert scrape.value("process_resident_memory_bytes") > 1_000_000
    assert scrape.value("process_cpu_seconds_total") > 0
    assert scrape.value("process_open_fds") > 3


@pytest.mark.slow
def test_a_real_worker_tells_how_long_sequences_queued_and_were_read(real_client: OpenAI) -> None:
    before = _of(real_client)
    chat = real_client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "What is 2+2?"}], temperature=0
    )
    after = _of(real_client)

    def more(name: str) -> float:
        return after.value(f"vllm:{name}") - before.value(f"vllm:{name}")

    assert chat.usage is not None
    assert more("prompt_tokens_total") == chat.usage.prompt_tokens
    assert more("generation_tokens_total") == chat.usage.completion_tokens
    assert more("request_success_total") == 1
    assert more("request_queue_time_seconds_count") == 1
    parts = ("request_queue_time_seconds", "request_prefill_time_seconds")
    assert sum(more(f"{part}_sum") for part in parts) == pytest.approx(
        more("time_to_first_token_seconds_sum"), abs=1e-6
    )


def _of(client: OpenAI) -> Scrape:
    with urlopen(str(client.base_url.join("/metrics")), timeout=10) as answer:
        return Scrape.of(answer.read())


async def test_an_embedder_counts_texts_and_their_tokens(embedder: Embedder) -> None:
    async with embedding(embedder) as worker:
        status, body = await worker.post(input=["one text", "and another"])
        async with worker.session.get("/metrics") as answer:
            scrape = Scrape.of(await answer.text())

    assert status == 200
    assert scrape.value("vllm:prompt_tokens_total") == body["usage"]["prompt_tokens"]
    assert scrape.value("vllm:request_success_total", finished_reason="stop") == 1
    assert scrape.value("vllm:e2e_request_latency_seconds_count") == 1
    assert scrape.value("vllm:num_requests_running") == 0
    assert "vllm:generation_tokens_total" not in scrape.names
