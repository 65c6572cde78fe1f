"""What `batch-api serve` prints works as it is pasted."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest
from pydantic import SecretStr

from batch_api.commands.keys import create_key
from batch_api.commands.serve import AnyoneLetIn, check_exposure
from batch_api.settings import DEMO_MODEL, Settings
from tests.minilm import linked
from tests.server import Server, StandinProcess
from tests.standin import answer_to

pytestmark = pytest.mark.slow

_POLL_SECONDS = 0.05
_SECONDS = 60


def test_the_printed_lines_work_for_a_model_in_a_folder(tmp_path: Path) -> None:
    model = tmp_path / "my-model"
    shutil.copytree(DEMO_MODEL, model)

    with Server(tmp_path, settings={"model": model}) as server:
        assert _paste(server).strip()


def test_the_printed_lines_work_for_an_embedding_model(tmp_path: Path) -> None:
    with Server(tmp_path, settings={"model": linked(tmp_path), "task": "embed"}) as server:
        vector = json.loads(_paste(server))

    assert len(vector) == 4
    assert all(isinstance(number, float) for number in vector)


def test_a_server_and_its_worker_each_say_once_that_they_stop(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.wait_until_logged("batch-api worker listens")
        server.terminate()
        logged = [line for line in server.log_tail().splitlines() if line.startswith("{")]

    said = [json.loads(line)["message"] for line in logged]
    assert [it for it in said if "stop" in it] == [
        "stopping",
        "worker stopping",
        "worker stopped",
        "stopped",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_printed_lines_work_for_an_upstream(tmp_path: Path, host: str) -> None:
    settings = {"host": host, "allow_anyone": True}
    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url, settings=settings) as server,
    ):
        assert f"listens on {server.url}/v1 and " in server.log_tail()
        assert _paste(server) == answer_to("What is 2+2?") + "\n"


def test_the_printed_lines_work_where_a_key_is_needed_and_do_not_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-of-sixteen-and-more"
    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url, settings={"api_key": key}) as server,
    ):
        monkeypatch.setenv("BATCH_API_API_KEY", key)
        assert _paste(server) == answer_to("What is 2+2?") + "\n"
        assert key not in server.log_tail()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
async def test_a_server_for_this_machine_needs_no_key(tmp_path: Path, host: str) -> None:
    await check_exposure(Settings(host=host, data_dir=tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "localhost.example.org"])
async def test_a_server_for_others_needs_a_key_or_a_word(tmp_path: Path, host: str) -> None:
    settings = Settings(host=host, data_dir=tmp_path)

    with pytest.raises(AnyoneLetIn):
        await check_exposure(settings)
    await check_exposure(settings.model_copy(update={"allow_anyone": True}))
    await check_exposure(settings.model_copy(update={"api_key": SecretStr("k" * 16)}))
    await create_key(tmp_path, name="first", tenant="default", lifetime_seconds=None)
    await check_exposure(settings)


def _paste(server: Server) -> str:
    """What the printed lines print; the SDK's own patience may end before the model is loaded."""
    _wait_until_ready(server)
    lines = [line.strip() for line in server.log_tail().split("\n") if line.startswith("    ")]
    deadline = time.monotonic() + _SECONDS
    while (pasted := _run(lines)).returncode != 0:
        assert "The model is loading" in pasted.stderr, pasted.stderr
        assert time.monotonic() < deadline
    return pasted.stdout


def _run(lines: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            server.fetch("/ready")
            return
        except urllib.error.HTTPError as error:
            error.close()
        assert time.monotonic() < deadline
        time.sleep(_POLL_SECONDS)
