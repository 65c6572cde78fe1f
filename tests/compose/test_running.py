"""The commands of the Compose files do what they are there for, all together."""

import json
import time
from pathlib import Path

import pytest
from openai import AuthenticationError, OpenAI

from batch_api.compose.documents import DEFAULT_MODEL
from batch_api.settings import DEMO_MODEL
from tests.compose.hub import hub
from tests.compose.local import up
from tests.compose.project import Service, services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "sk-of-sixteen-characters"
VARIABLES = {
    "BATCH_API_API_KEY": KEY,
    "BATCH_API_MAX_LENGTH": "256",
    "BATCH_API_LOG_LEVEL": "error",
}
_FINAL = ("completed", "failed", "expired", "cancelled")
_POLL_SECONDS = 0.2


def _client(url: str, key: str = KEY) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key=key)


def _questions(model: str, count: int) -> bytes:
    lines = [
        {
            "custom_id": f"sum-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "temperature": 0,
                "max_tokens": 8,
                "messages": [{"role": "user", "content": f"What is {number}+{number}?"}],
            },
        }
        for number in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _run_batch(client: OpenAI, model: str, count: int) -> list[str]:
    """Upload, batch, output: the ids of its lines."""
    file = client.files.create(file=("in.jsonl", _questions(model, count)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in _FINAL:
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch.errors
    assert batch.output_file_id is not None
    content = client.files.content(batch.output_file_id).text
    return [json.loads(line)["custom_id"] for line in content.splitlines()]


def test_on_the_cpu_a_batch_runs_with_the_bundled_model(tmp_path: Path) -> None:
    running = services("docker-compose.yml", VARIABLES, "cpu", "front")

    with up(running, tmp_path, {}) as site, _client(site.url("front")) as client:
        assert _run_batch(client, "demo", 20) == [f"sum-{number}" for number in range(20)]

        stranger = client.with_options(api_key="sk-of-somebody-else")
        with pytest.raises(AuthenticationError):
            stranger.files.list()


def test_several_gpus_share_a_batch_with_a_model_that_is_downloaded_once(tmp_path: Path) -> None:
    everything = services("docker-compose-multigpu.yml", VARIABLES, "gpu")
    running = [each for each in everything if not _is_one_too_many(each)]

    with hub(DEFAULT_MODEL, DEMO_MODEL) as (url, asked):
        with up(running, tmp_path, {"HF_ENDPOINT": url}) as site:
            downloads = [path for path in asked if path.endswith("/model.safetensors")]
            with _client(site.url("batch-api")) as client:
                assert len(_run_batch(client, DEFAULT_MODEL, 40)) == 40
            with _client(site.url("nginx"), "none") as client:
                assert [model.id for model in client.models.list()] == [DEFAULT_MODEL]
        # Once by its head and once by its bytes, and never by a worker.
        assert 1 <= len(downloads) <= 2
        assert [path for path in asked if path.endswith("/model.safetensors")] == downloads

    for number in range(2):
        log = (tmp_path / f"worker-{number}.log").read_text()
        assert f"loads {DEFAULT_MODEL}" in log


def _is_one_too_many(service: Service) -> bool:
    """This machine has two CPUs, not eight GPUs."""
    return service.name.startswith("worker-") and int(service.name.removeprefix("worker-")) > 1
