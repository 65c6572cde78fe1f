"""Which GPUs get a worker, and what becomes of a worker that ends."""

from pathlib import Path

import pytest

from batch_api.supervisor import WorkerUnusable, visible_gpus


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


def _install_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
