"""Two stand-ins in the test's own loop, and nginx in front of them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

import aiohttp
import pytest

from tests.nginx.process import Nginx
from tests.standin import MODEL, Standin

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Site:
    nginx: Nginx
    standins: list[Standin]
    session: aiohttp.ClientSession

    async def ask(self, text: str) -> aiohttp.ClientResponse:
        messages = [{"role": "user", "content": text}]
        answer = await self.session.post(CHAT, json={"model": MODEL, "messages": messages})
        await answer.read()
        return answer

    @property
    def received(self) -> list[int]:
        return [standin.stats.received for standin in self.standins]


@pytest.fixture
def directives() -> dict[str, str]:
    """For a test to wait less."""
    return {}


@pytest.fixture
async def site(directives: dict[str, str]) -> AsyncIterator[Site]:
    standins = [Standin(), Standin()]
    async with AsyncExitStack() as stack:
        addresses = {}
        for number, standin in enumerate(standins):
            url = await stack.enter_async_context(standin.listening())
            addresses[f"worker-{number}:8000"] = url.removeprefix("http://")
        nginx = stack.enter_context(Nginx("workers.conf", addresses, directives=directives))
        session = await stack.enter_async_context(aiohttp.ClientSession(nginx.url))
        yield Site(nginx, standins, session)


@pytest.fixture
def nobody() -> Iterator[Nginx]:
    """In front of two ports where nobody listens."""
    addresses = {"worker-0:8000": "127.0.0.1:1", "worker-1:8000": "127.0.0.1:2"}
    with Nginx("workers.conf", addresses) as nginx:
        yield nginx
