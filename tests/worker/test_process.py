"""How a worker's process begins and ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest

from batch_api.settings import DEMO_MODEL
from tests.server import free_port
from tests.worker.process import run, running, wait

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class FakeWorker:
    process: "subprocess.Popen[str]"
    session: aiohttp.ClientSession

    async def say(self, content: str, **options: object) -> tuple[int, object]:
        messages = [{"role": "user", "content": content}]
        body = {"model": "fake", "messages": messages, **options}
        async with self.session.post(CHAT, json=body) as answer:
            return answer.status, await answer.json()

    async def wait_for(self, **health: object) -> None:
        async with asyncio.timeout(60):
            while not health.items() <= (await self._health()).items():  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)

    async def _health(self) -> dict[str, object]:
        with contextlib.suppress(aiohttp.ClientConnectorError):
            async with self.session.get("/health") as answer:
                health: dict[str, object] = await answer.json()
                return health
        return {}


@contextlib.asynccontextmanager
async def fake_worker(*options: str) -> AsyncIterator[FakeWorker]:
    port = free_port()
    with running("tests.worker.fake_worker", "--port", str(port), *options) as process:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            worker = FakeWorker(process, session)
            await worker.wait_for(model="fake")
            yield worker


async def test_a_failing_engine_answers_all_with_502_and_ends_the_process() -> None:
    async with fake_worker() as worker:
        await worker.wait_for(ready=True)
        waiting = [asyncio.create_task(worker.say("count")) for _ in range(3)]
        await worker.wait_for(running=2, waiting=1)

        waiting[0].cancel()
        waiting[1].cancel()
        status, body = await worker.say("break")
        ended = await asyncio.to_thread(wait, worker.process)

        assert (status, (await waiting[2])[0]) == (502, 502)
        assert set(body["error"]) == {"message", "type", "param", "code"}  # type: ignore[index]
        assert ended.code == 1
        assert "the fake engine broke" in ended.said


async def test_at_sigterm_running_requests_end_new_ones_are_503_and_the_exit_code_is_0() -> None:
    async with fake_worker() as worker:
        await worker.wait_for(ready=True)
        waiting = asyncio.create_task(worker.say("count", max_tokens=300))
        await worker.wait_for(running=1)

        worker.process.terminate()
        await worker.wait_for(status="stopping")
        refused, _ = await worker.say("say hi")
        answered, _ = await waiting
        ended = await asyncio.to_thread(wait, worker.process)

        assert (refused, answered, ended.code) == (503, 200, 0)


async def test_what_outlasts_the_grace_period_is_503_and_the_exit_code_is_0() -> None:
    async with fake_worker("--grace-seconds", "0.1") as worker:
        await worker.wait_for(ready=True)
        waiting = asyncio.create_task(worker.say("count", max_tokens=4900))
        await worker.wait_for(running=1)

        worker.process.terminate()

        assert (await waiting)[0] == 503
        assert (await asyncio.to_thread(wait, worker.process)).code == 0


async def test_a_second_sigterm_ends_it_at_once() -> None:
    async with fake_worker() as worker:
        await worker.wait_for(ready=True)
        waiting = asyncio.create_task(worker.say("count", max_tokens=4900))
        await worker.wait_for(running=1)

        worker.process.terminate()
        await worker.wait_for(status="stopping")
        worker.process.terminate()
        ended = await asyncio.to_thread(wait, worker.process)

        assert ended.code == 1
        with pytest.raises(aiohttp.ClientError):
            await waiting


async def test_sigterm_while_loading_ends_it() -> None:
    async with fake_worker("--loads-for-ever") as worker:
        worker.process.terminate()

        assert (await asyncio.to_thread(wait, worker.process)).code == 0


def test_a_folder_that_is_not_there_is_a_sentence_and_exit_2(tmp_path: Path) -> None:
    ended = run("batch_api", "worker", "--model", str(tmp_path / "none"), "--port", "0")

    assert (ended.code, ended.said) == (2, f"batch-api: There is no folder {tmp_path}/none.\n")


def test_a_folder_without_a_model_is_a_sentence_and_exit_2(tmp_path: Path) -> None:
    ended = run("batch_api", "worker", "--model", str(tmp_path), "--port", "0")

    sentence = f"batch-api: The folder {tmp_path} holds no model: it has no config.json.\n"
    assert (ended.code, ended.said) == (2, sentence)


def test_a_model_that_fails_to_load_is_a_sentence_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toaster"}))

    ended = run("batch_api", "worker", "--model", str(tmp_path), "--port", "0")

    assert ended.code == 2
    *_, sentence = ended.said.splitlines()
    assert sentence.startswith("batch-api: ")
    assert str(tmp_path) in sentence
    assert "Traceback" not in ended.said


def test_an_embedding_model_with_an_unknown_module_is_a_sentence_and_exit_2(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    modules = [{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))

    model = ("--model", str(tmp_path), "--task", "embed")
    ended = run("batch_api", "worker", *model, "--port", "0")

    assert ended.code == 2
    *_, sentence = ended.said.splitlines()
    assert sentence.startswith(f"batch-api: {tmp_path} makes its vectors with the modules Static")
    assert "Traceback" not in ended.said


def test_a_device_that_is_not_there_is_a_sentence_and_exit_2() -> None:
    ended = run(
        *("batch_api", "worker", "--model", str(DEMO_MODEL), "--port", "0"),
        *("--device", "nonsense"),
    )

    assert ended.code == 2
    *_, sentence = ended.said.splitlines()
    assert sentence.startswith("batch-api: the device nonsense can't be used: ")
    assert "Traceback" not in ended.said


def test_a_port_in_use_is_a_sentence_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("batch_api", "worker", "--model", str(tmp_path), "--port", str(port))

    assert ended.code == 2
    assert ended.said.startswith(f"batch-api: Can't listen on 127.0.0.1:{port}: ")
    assert ended.said.count("\n") == 1


_PARENT = """
import subprocess, sys, time
worker = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_a_worker_does_not_outlive_a_parent_that_was_killed() -> None:
    port = str(free_port())
    module = ["tests.worker.fake_worker", "--port", port, "--exit-with-parent"]
    command = [sys.executable, "-m", *module]
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, *command], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.status() != psutil.STATUS_ZOMBIE

        os.kill(parent.pid, signal.SIGKILL)

        deadline = time.monotonic() + 60
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(_POLL_SECONDS)
