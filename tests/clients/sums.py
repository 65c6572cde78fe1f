"""What the tests ask: a batch's input whose answers are known, and how those are read."""

import json
from typing import Any

CHAT_MODEL = "demo"
KEY = "sk-for-tests-only"
"""Without which the server refuses."""


def sums(count: int) -> bytes:
    """Lines of an input file; what they ask has the answers `answers_to(count)`."""
    return b"".join(json.dumps(_line(n)).encode() + b"\n" for n in range(count))


def answers_to(count: int) -> dict[str, str]:
    return {f"sum-{n}": str(n + 2) for n in range(count)}


def answers_in(output: bytes) -> dict[str, str]:
    """By custom id, from an output file in which every line was answered."""
    lines = [json.loads(line) for line in output.splitlines()]
    assert {line["response"]["status_code"] for line in lines} == {200}
    return {line["custom_id"]: _text(line["response"]["body"]) for line in lines}


def _line(n: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"What is {n}+2?"}]
    return {
        "custom_id": f"sum-{n}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": CHAT_MODEL, "messages": messages, "temperature": 0},
    }


def _text(completion: dict[str, Any]) -> str:
    text: str = completion["choices"][0]["message"]["content"]
    return text
