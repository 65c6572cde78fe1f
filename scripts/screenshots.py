"""`make screenshots`: pictures of every page, over a server in which something has happened.

All go to build/screenshots; the few that README shows, to docs/screenshots. With `--minutes 12` it
is busy for so long before, and charts have something to show.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from openai import APIConnectionError, InternalServerError, OpenAI
from openai.types import Batch
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
EVERYTHING = ROOT / "build" / "screenshots"
SHOWN = ROOT / "docs" / "screenshots"
CHROMIUM = "/usr/bin/chromium"

SIZES = {"wide": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
PAGES = {
    "batches": "/",
    "batch": "/batches/{running}",
    "failed-batch": "/batches/{failed}",
    "line": "/batches/{completed}/lines/1",
    "new": "/new",
    "activity": "/activity?range=15m",
    "workers": "/workers",
    "storage": "/storage",
    "playground": "/playground",
}
IN_README = (
    *("batches-wide-light.png", "batch-wide-dark.png"),
    *("activity-wide-light.png", "workers-wide-dark.png"),
)

_MOST_BYTES = 150_000
_START_SECONDS = 120
_SETTLE_MS = 2500
_FINAL = ("completed", "failed", "expired", "cancelled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="that the server works before")
    options = parser.parse_args()
    for folder in (EVERYTHING, SHOWN):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, _server(Path(data)) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none")
        _keep_busy(client, seconds=60 * options.minutes)
        ids = _live(client)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for size in SIZES:
                for scheme in ("light", "dark"):
                    _take_all(browser, url, ids, size=size, scheme=scheme)


def _keep_busy(client: OpenAI, *, seconds: float) -> None:
    """With batches of all sizes, and now and then with nothing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _wait(client, _start(client, _questions(random.randrange(50, 400))))
        time.sleep(random.uniform(0, 20))


def _live(client: OpenAI) -> Mapping[str, str]:
    """Batches of every kind; their ids."""
    completed = [_start(client, _questions(80)) for _ in range(3)][-1]
    failed = _start(client, b'{"custom_id": "1"}\n' + _questions(2) + b"no line\n")
    cancelled = _start(client, _questions(2000))
    client.batches.cancel(cancelled.id)
    for batch in (completed, failed, cancelled):
        _wait(client, batch)
    running = _start(client, _questions(40_000))
    while (counts := client.batches.retrieve(running.id).request_counts) is None or (
        counts.completed < 40
    ):
        time.sleep(0.2)
    return {"completed": completed.id, "failed": failed.id, "running": running.id}


def _questions(count: int) -> bytes:
    lines = (
        {
            "custom_id": f"question-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "demo",
                "messages": [{"role": "user", "content": f"What is {number}+{number + 3}?"}],
                "max_tokens": 40,
            },
        }
        for number in range(count)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _start(client: OpenAI, content: bytes) -> Batch:
    file = client.files.create(file=("questions.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"run": "evaluation"},
    )


def _wait(client: OpenAI, batch: Batch) -> None:
    while client.batches.retrieve(batch.id).status not in _FINAL:
        time.sleep(0.2)


def _take_all(
    browser: Browser, url: str, ids: Mapping[str, str], *, size: str, scheme: str
) -> None:
    context = browser.new_context(base_url=url, viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    for name, address in PAGES.items():
        page.goto(address.format(**ids))
        if name == "playground":
            _talk(page)
        page.wait_for_timeout(_SETTLE_MS)
        picture = f"{name}-{size}-{scheme}.png"
        page.screenshot(path=EVERYTHING / picture, full_page=True)
        if picture in IN_README:
            _take_for_readme(page, SHOWN / picture)
    context.close()


def _talk(page: Page) -> None:
    page.get_by_label("Your message").fill("What is 17+25?")
    page.locator("#model option").first.wait_for(state="attached")
    page.get_by_label("Your message").press("Control+Enter")


def _take_for_readme(page: Page, picture: Path) -> None:
    """What is seen without scrolling."""
    page.screenshot(path=picture)
    size = picture.stat().st_size
    assert size <= _MOST_BYTES, f"{picture} is too large for the repository: {size} bytes"


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "batch_api", "serve", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data")], stdout=log, stderr=log
        )
        try:
            _until_it_answers(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            if client.models.list().data:
                return
        except (APIConnectionError, InternalServerError):
            pass
        time.sleep(0.3)
    raise TimeoutError("the server does not answer")


if __name__ == "__main__":
    main()
