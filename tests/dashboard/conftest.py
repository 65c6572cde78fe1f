"""A real server, a real browser, and a look at all that its pages say and ask for.

The browser's library keeps an event loop of its own: tests here are not asynchronous.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from openai import OpenAI
from openai.types import Batch
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from batch_api.lifecycle import BatchStatus
from tests.lived_in import until
from tests.server import Server, StandinProcess
from tests.standin import MODEL

_CHROMIUM = "/usr/bin/chromium"
_PATIENCE_MS = 30_000
expect.set_options(timeout=_PATIENCE_MS)
CHAT: Final = "/v1/chat/completions"


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path_factory.mktemp("standin")) as standin:
        yield standin


@pytest.fixture(scope="session")
def server(standin: StandinProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without keys; all tests share it, so that others' batches may stand beside one's own.

    What hangs in a batch that is cancelled is waited for only briefly.
    """
    settings = {"cancel_grace_seconds": 2}
    with Server(tmp_path_factory.mktemp("server"), standin.url, settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[OpenAI]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watch:
    """What a page has complained about, and whom it has asked for anything."""

    def __init__(self, context: BrowserContext, home: str) -> None:
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self._home = home
        context.on("console", lambda message: self._hear(message.type, message.text))
        context.on("weberror", lambda error: self._hear("error", str(error.error)))
        context.on("request", self._look)

    def forgive(self, text: str) -> None:
        """What a test provokes: complaints with this in them."""
        assert any(text in complaint for complaint in self.complaints), self.complaints
        self.complaints = [complaint for complaint in self.complaints if text not in complaint]

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _look(self, request: Request) -> None:
        if not request.url.startswith((f"{self._home}/", "data:", "blob:")):
            self.strangers.append(request.url)


@contextmanager
def visit(browser: Browser, home: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A fresh visitor, who never sees an error in the console, nor leaves this server."""
    context = browser.new_context(base_url=home, accept_downloads=True, **options)
    context.set_default_timeout(_PATIENCE_MS)
    watch = Watch(context, home)
    try:
        yield context.new_page(), watch
        assert watch.complaints == []
        assert watch.strangers == []
    finally:
        context.close()


@pytest.fixture
def visitor(browser: Browser, server: Server) -> Iterator[tuple[Page, Watch]]:
    with visit(browser, server.url) as visitor:
        yield visitor


@pytest.fixture
def page(visitor: tuple[Page, Watch]) -> Page:
    return visitor[0]


@pytest.fixture
def watch(visitor: tuple[Page, Watch]) -> Watch:
    return visitor[1]


def line(custom_id: str, text: str = "hello", **body: Any) -> bytes:
    """Of an input; `text` may begin with a `Fault`."""
    message = {"role": "user", "content": text}
    fields = {
        "custom_id": custom_id,
        "method": "POST",
        "url": CHAT,
        "body": {"model": MODEL, "messages": [message], **body},
    }
    return msgspec.json.encode(fields) + b"\n"


def start(client: OpenAI, content: bytes, *, filename: str = "in.jsonl", **more: Any) -> Batch:
    file = client.files.create(file=(filename, content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more
    )


def ended(client: OpenAI, batch: Batch) -> Batch:
    return until(client, batch, lambda it: BatchStatus(it.status).is_final)


def answered(client: OpenAI, batch: Batch, lines: int) -> Batch:
    """As soon as so many lines have ended, well or not."""

    def is_so(it: Batch) -> bool:
        counts = it.request_counts
        return counts is not None and counts.completed + counts.failed >= lines

    return until(client, batch, is_so)


@pytest.fixture
def file_named(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """To be chosen on a page."""

    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
