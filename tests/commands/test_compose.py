"""`batch-api compose` as an operator calls it."""

from contextlib import chdir
from pathlib import Path

import pytest
import yaml

from tests.command_line import Ended, batch_api


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "nginx").mkdir()
    (tmp_path / "Dockerfile").touch()
    return tmp_path


def _compose(folder: Path, *arguments: str) -> Ended:
    with chdir(folder):
        return batch_api("compose", *arguments)


def test_three_gpus_get_three_workers_and_their_list(checkout: Path) -> None:
    ended = _compose(checkout, "--gpus", "3", "--model", "some/model")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "docker-compose-multigpu.yml is written.",
        "nginx/workers.list is written.",
    ]
    written = yaml.safe_load((checkout / "docker-compose-multigpu.yml").read_text())
    workers = [name for name in written["services"] if name.startswith("worker-")]
    assert workers == ["worker-0", "worker-1", "worker-2"]
    model = written["services"]["worker-2"]["environment"]["BATCH_API_MODEL"]
    assert model == "${BATCH_API_MODEL:-some/model}"
    assert (checkout / "nginx/workers.list").read_text().count("server worker-") == 3


def test_one_gpu_needs_no_nginx(checkout: Path) -> None:
    assert _compose(checkout, "--gpus", "1").returncode == 0

    written = yaml.safe_load((checkout / "docker-compose.yml").read_text())
    assert "nginx" not in written["services"]
    assert not list((checkout / "nginx").iterdir())


def test_files_that_somebody_changed_are_not_overwritten_unasked(checkout: Path) -> None:
    _compose(checkout, "--gpus", "2")
    _compose(checkout, "--gpus", "2", "-o", "again.yml")
    changed = checkout / "docker-compose-multigpu.yml"
    changed.write_text("mine")

    refused = _compose(checkout, "--gpus", "2")

    assert refused.returncode == 2
    assert refused.stderr == (
        "batch-api: docker-compose-multigpu.yml would change; --force overwrites it.\n"
    )
    assert changed.read_text() == "mine"
    assert _compose(checkout, "--gpus", "2", "--force").returncode == 0
    assert changed.read_text() != "mine"


def test_elsewhere_than_in_a_checkout_nothing_is_written(tmp_path: Path) -> None:
    refused = _compose(tmp_path, "--gpus", "2")

    assert refused.returncode == 2
    assert refused.stderr.startswith(f"batch-api: {tmp_path} is no checkout of batch-api")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ['x"; rm', "${HOME}"])
def test_a_model_that_would_break_the_file_is_refused(checkout: Path, model: str) -> None:
    assert _compose(checkout, "--gpus", "1", "--model", model).returncode == 2
    assert not (checkout / "docker-compose.yml").exists()
