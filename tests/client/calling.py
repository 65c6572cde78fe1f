"""Calls a command in this process: what it says, and its exit code; an error of ours is raised."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from batch_api.cli import app
from tests.standin import MODEL

KEY = "sk-of-the-client-tests"


def call(url: str, *arguments: str, key: str = KEY) -> Result:
    return CliRunner().invoke(
        app,
        [*arguments, "--server", url],
        env={"OPENAI_API_KEY": key, "COLUMNS": "300"},
        catch_exceptions=False,
    )


def write(folder: Path, texts: Sequence[str], name: str = "in.jsonl") -> Path:
    lines = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "messages": [{"role": "user", "content": text}]},
        }
        for number, text in enumerate(texts)
    ]
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
