"""`make demo`: starts a server with the bundled model and runs a real batch through the SDK."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import APIConnectionError, InternalServerError, OpenAI
from openai.types import Batch
from rich.console import Console
from rich.table import Table

QUESTIONS = [
    "What is 2+2?",
    "Add 17 and 25.",
    "What is 9 - 4?",
    "What is 6 times 7?",
    "What is the capital of France?",
    "What is the capital of Japan?",
    "Is this positive or negative: I love this film.",
    "Repeat the word banana.",
    "Write banana in upper case.",
    "Count to 12.",
    "What is 31+12? Answer as JSON.",
]
_START_SECONDS = 120

console = Console()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as url:
        client = OpenAI(base_url=url, api_key="none")
        batch = _run_batch(client)
        _show(client, batch)


def _run_batch(client: OpenAI) -> Batch:
    console.print(f"Uploading {len(QUESTIONS)} requests as a JSONL file …")
    file = client.files.create(file=("questions.jsonl", _jsonl()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    with console.status("") as status:
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            counts = batch.request_counts
            done = f"{counts.completed}/{counts.total}" if counts else ""
            status.update(f"{batch.id} {batch.status} {done}")
            time.sleep(0.2)
            batch = client.batches.retrieve(batch.id)
    console.print(f"{batch.id} {batch.status}")
    return batch


def _jsonl() -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"question-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "demo",
                    "messages": [{"role": "user", "content": question}],
                    "temperature": 0,
                },
            }
        ).encode()
        + b"\n"
        for number, question in enumerate(QUESTIONS)
    )


def _show(client: OpenAI, batch: Batch) -> None:
    if batch.output_file_id is None:
        sys.exit(f"The batch gave no answers: {batch.to_json()}")
    table = Table("custom_id", "question", "answer")
    lines = client.files.content(batch.output_file_id).content.splitlines()
    for question, line in zip(QUESTIONS, map(json.loads, lines), strict=True):
        answer = line["response"]["body"]["choices"][0]["message"]["content"]
        table.add_row(line["custom_id"], question, answer)
    console.print(table)
    if batch.usage:
        console.print(f"{batch.usage.input_tokens} tokens in, {batch.usage.output_tokens} out.")
    console.print("[bold]make serve[/] keeps a server running; the README shows the rest.")


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """`batch-api serve` on a free port, for as long as the block runs; its base URL."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, "-m", "batch_api", "serve", "--port", str(port)]
    console.print(f"Starting batch-api on {url} …")
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data")], stdout=log, stderr=log
        )
        try:
            _wait_until_ready(url, process, Path(log.name))
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.models.list()
        except (APIConnectionError, InternalServerError):
            time.sleep(0.1)
        else:
            return
    sys.exit(f"The server did not start:\n{log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


main()
