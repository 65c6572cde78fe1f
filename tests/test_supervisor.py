"""Which GPUs get a worker, and what becomes of a worker that ends."""

import shutil
import socket
import time
import urllib.error
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from batch_api.commands.listening import bind, held_port
from batch_api.settings import DEMO_MODEL
from batch_api.supervisor import WorkerUnusable, visible_gpus
from tests.server import Server

_POLL_SECONDS = 0.05
_SECONDS = 60


@pytest.mark.parametrize(("chosen", "gpus"), [("", []), ("-1", []), ("2, GPU-5", ["2", "GPU-5"])])
async def test_the_environment_chooses_the_gpus(
    monkeypatch: pytest.MonkeyPatch, chosen: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    assert await visible_gpus() == gpus


async def test_the_driver_lists_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install_nvidia_smi(tmp_path, monkeypatch, "printf '0\\n1\\n'")

    assert await visible_gpus() == ["0", "1"]


async def test_a_driver_that_does_not_answer_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_nvidia_smi(tmp_path, monkeypatch, "exec sleep 60")

    with pytest.raises(WorkerUnusable, match="nvidia-smi does not answer"):
        await visible_gpus(timeout_seconds=0.1)


@pytest.mark.slow
def test_a_worker_that_ran_once_is_started_again_whatever_it_ends_with(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    config = model / "config.json"

    with Server(tmp_path, settings={"model": model}) as server:
        _wait_until(lambda: _is_ready(server))
        config.rename(tmp_path / "config.json")
        psutil.Process(server.pid).children()[0].kill()
        _wait_until(lambda: '"code": 2' in server.log_tail())
        (tmp_path / "config.json").rename(config)
        _wait_until(lambda: _is_ready(server))


def test_the_options_of_a_worker_reach_it(tmp_path: Path) -> None:
    settings = {"max_length": 128, "max_sequences": 3, "dtype": "float32", "task": "embed"}

    with Server(tmp_path, settings=settings) as server:
        _wait_until(lambda: len(psutil.Process(server.pid).children()) == 1)
        command = psutil.Process(server.pid).children()[0].cmdline()

    given = dict(pairwise(command))
    assert given["--max-length"] == "128"
    assert given["--max-sequences"] == "3"
    assert given["--dtype"] == "float32"
    assert given["--task"] == "embed"


def test_a_held_port_is_for_the_child_alone_and_refuses_while_it_is_down() -> None:
    with held_port() as port:
        for _ in range(2):
            with bind("127.0.0.1", port):
                socket.create_connection(("127.0.0.1", port)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))


def _is_ready(server: Server) -> bool:
    try:
        return bool(server.fetch("/ready"))
    except urllib.error.HTTPError as error:
        error.close()
        return False


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(_POLL_SECONDS)


def _install_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
