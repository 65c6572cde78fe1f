"""Calls of the client's commands, and files for them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.command_line import Ended, batch_api
from tests.standin import MODEL

KEY = "sk-of-the-client-tests"


def call(url: str, *arguments: str, key: str = KEY) -> Ended:
    return batch_api(*arguments, "--server", url, OPENAI_API_KEY=key, COLUMNS="300")


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


def drain(terminal: int) -> str:
    """What was shown, when its other side is closed."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # the other side is closed
            part = b""
        if not part:
            os.close(terminal)
            return shown.decode()
        shown += part
