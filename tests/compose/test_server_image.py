"""What the server's image is made of, installed into an environment of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose.project import ROOT
from tests.server import Command, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_SECONDS = 300


class Installed(Command):
    """`batch-api serve` from there."""

    ready_path = "/health"

    def __init__(self, environment: Path, folder: Path) -> None:
        port = free_port()
        serve = ["serve", "--upstream", "http://127.0.0.1:1/v1", "--port", str(port)]
        super().__init__(
            [str(environment / "bin" / "batch-api"), *serve],
            log=folder / "server.log",
            port=port,
            environment={"BATCH_API_DATA_DIR": str(folder / "data"), "PYTHONPATH": ""},
        )


def test_the_server_runs_from_what_its_image_gets_without_torch(tmp_path: Path) -> None:
    environment = _environment(tmp_path, _kept_by_dockerignore(tmp_path / "context"))

    packages = _run(environment / "bin" / "pip", "list", "--format", "freeze")

    assert "batch-api==" in packages
    assert "torch==" not in packages
    with Installed(environment, tmp_path) as server:
        assert server.fetch("/health") == b'{"status":"alive"}'
        assert b"/v1/batches" in server.fetch("/openapi.json")


def _kept_by_dockerignore(context: Path) -> Path:
    """What a build sees of the checkout."""
    context.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        source = ROOT / line.removeprefix("!")
        if line.startswith("!") and source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, context / source.name, ignore=ignored)
        elif line.startswith("!"):
            shutil.copy(source, context)
    return context


def _environment(folder: Path, context: Path) -> Path:
    environment = folder / "environment"
    _run(Path(sys.executable), "-m", "venv", str(environment))
    pins = ["--constraint", str(context / "constraints.txt")]
    _run(environment / "bin" / "pip", "install", "--quiet", *pins, str(context))
    return environment


def _run(program: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
