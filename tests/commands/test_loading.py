"""What `run` says while a model loads, which may take minutes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batch_api.clock import Clock
from batch_api.commands.loading import Loading
from batch_api.upstreams import Upstreams
from tests.api.upstream import ScriptedUpstream
from tests.scheduler.site import question
from tests.server import free_port

_REFUSALS = 4
"""So many that it has paused, and gone on, and paused again."""


@pytest.fixture
async def loads() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(status=503, models=["a"], loading={"a"})
    upstream.answer(b'{"error": {}}')
    yield upstream
    await upstream.stop()


def be_ready(upstream: ScriptedUpstream) -> None:
    upstream.loading.clear()
    upstream.status = 200
    upstream.answer(b'{"choices": []}')


async def test_one_thing_is_said_until_the_model_is_ready(
    tmp_path: Path, loads: ScriptedUpstream
) -> None:
    url = await loads.start()
    (tmp_path / "in.jsonl").write_bytes(question("row", model="a"))
    job = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batch_api", "run", "in.jsonl", "-o", "out.jsonl"),
        *("--upstream", url),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    while len(loads.received) < _REFUSALS:  # noqa: ASYNC110 what a socket brings rings no bell
        await asyncio.sleep(0.02)
    be_ready(loads)
    _, stderr = await job.communicate()

    said = [line.partition(":")[0] for line in stderr.decode().splitlines()]
    assert job.returncode == 0
    assert said[: said.index("loading the model")] in ([], ["validating"])
    assert said.count("in progress, waiting") <= 1  # for the end of the last pause


async def test_what_is_ready_once_is_not_said_to_load_again(loads: ScriptedUpstream) -> None:
    upstreams = Upstreams([await loads.start()], timeout_seconds=10)
    clock = Clock()
    loading = Loading(upstreams, clock)

    assert await loading.goes_on()
    be_ready(loads)
    while await loading.goes_on():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    loads.loading.add("a")
    loads.listings = 0
    assert not await loading.goes_on()
    assert loads.listings == 0
    await upstreams.close()


async def test_an_upstream_that_is_away_is_not_said_to_load() -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port()}"], timeout_seconds=10)
    assert not await Loading(upstreams, Clock()).goes_on()
    await upstreams.close()


async def test_a_worker_that_was_just_started_is_said_to_load() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    upstreams = Upstreams([url], timeout_seconds=10, are_starting=True)
    assert await Loading(upstreams, Clock()).goes_on()
    await upstreams.close()
