"""What `run` says while a model loads, which may take minutes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batch_api.api.readiness import LOADING
from batch_api.clock import Clock
from batch_api.commands.loading import Loading
from batch_api.scheduler.dispatcher import NOT_TAKEN
from batch_api.upstreams import Upstreams
from tests.api.upstream import ScriptedUpstream
from tests.scheduler.site import question
from tests.server import free_port

IS_LOADING = LOADING["reason"]
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


async def test_what_it_waits_for_is_said_until_the_model_is_ready(
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

    said = stderr.decode()
    assert job.returncode == 0, said
    assert "in progress: 0 of 1 line, 0 failed; waiting: a worker is loading its model\n" in said
    assert said.count(NOT_TAKEN) <= 1  # for the end of the last pause


async def test_what_was_ready_is_asked_again_only_while_nothing_moves(
    loads: ScriptedUpstream,
) -> None:
    upstreams = Upstreams([await loads.start()], timeout_seconds=10)
    loading = Loading(upstreams, Clock(), are_own=False)

    assert await loading.waits_for(None) == IS_LOADING
    be_ready(loads)
    while await loading.waits_for(None):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    loads.loading.add("a")
    loads.listings = 0
    assert await loading.waits_for(None) is None
    assert loads.listings == 0
    while await loading.waits_for(NOT_TAKEN) != IS_LOADING:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await upstreams.close()


@pytest.mark.parametrize(("are_own", "reason"), [(False, NOT_TAKEN), (True, IS_LOADING)])
async def test_a_worker_of_ours_that_is_away_is_said_to_load_and_an_upstream_is_not(
    are_own: bool, reason: str
) -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port()}"], timeout_seconds=10)
    loading = Loading(upstreams, Clock(), are_own=are_own)

    assert await loading.waits_for(NOT_TAKEN) == reason
    await upstreams.close()


async def test_a_worker_of_ours_is_said_to_load_until_it_is_asked_again(
    loads: ScriptedUpstream,
) -> None:
    be_ready(loads)
    upstreams = Upstreams([await loads.start()], timeout_seconds=10)
    loading = Loading(upstreams, Clock(), are_own=True)

    assert await loading.waits_for(NOT_TAKEN) == IS_LOADING
    assert await loading.waits_for("the disk is full") == "the disk is full"
    assert await loading.waits_for(None) is None
    await upstreams.close()
