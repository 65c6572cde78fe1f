"""What the workers tell of themselves, asked while somebody looks, and not more often than that.

Nothing here has a part in the work: a worker that tells nothing may be as well as any other.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
import msgspec

from batch_api.clock import Clock
from batch_api.dashboard.vitals import Vitals, read_vitals
from batch_api.lookups import Lookups
from batch_api.remembered import Remembered
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.upstream import without_userinfo

_KEPT_SECONDS = 4.0
_PATIENCE_SECONDS = 2.0
_MOST_BYTES = 1024 * 1024
_AWAY = (502, 503, 504)
"""What a proxy answers if there is nobody behind it."""
_RATE_SECONDS = 60.0
"""Counters are compared with what they were no longer ago than that."""


class _Health(msgspec.Struct):
    """What our own workers answer to `/health`; others say less, or nothing."""

    status: str | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """How a worker was when it was last looked at; None: it does not tell."""

    url: str
    """Without a name and password."""
    state: str
    """`ready`, `down`, `answering` (it tells nothing more), or what it says itself."""
    health: _Health
    vitals: Vitals
    input_tokens_per_second: float | None
    output_tokens_per_second: float | None

    @property
    def models(self) -> list[str]:
        """Whatever they are called."""
        told = [self.health.model] if self.health.model else []
        return sorted(self.vitals.models) or told

    @property
    def device(self) -> str | None:
        names = [gpu.name for gpu in self.vitals.gpus]
        return ", ".join(dict.fromkeys(names)) or self.health.device


class Fleet:
    def __init__(self, urls: Sequence[str], clock: Clock) -> None:
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        self._clock = clock
        self._remembered = Remembered(clock)
        self._lookups = Lookups()
        self._earlier: dict[str, tuple[float, Vitals]] = {}
        """By URL: what it counted, and when."""

    async def look(self) -> list[Worker]:
        """As they are now, or were a moment ago: however many look, they are asked once."""
        return await self._remembered.find("workers", self._look, keep_seconds=_KEPT_SECONDS)

    async def _look(self) -> list[Worker]:
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_SECONDS)
        connector = aiohttp.TCPConnector(resolver=self._lookups)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            return await asyncio.gather(*(self._visit(session, url) for url in self._urls))

    async def _visit(self, session: aiohttp.ClientSession, url: str) -> Worker:
        metrics, health = await asyncio.gather(
            _get(session, f"{url}/metrics"), _get(session, f"{url}/health")
        )
        vitals = await asyncio.to_thread(read_vitals, (metrics or b"").decode(errors="replace"))
        told = _told(health or b"")
        is_down = metrics is None and health is None
        return Worker(
            url=without_userinfo(url),
            state="down" if is_down else _state(told, vitals),
            health=told,
            vitals=vitals,
            **self._rates(url, vitals),
        )

    def _rates(self, url: str, vitals: Vitals) -> dict[str, float | None]:
        now = self._clock.monotonic()
        at, earlier = self._earlier.get(url, (0.0, Vitals()))
        self._earlier[url] = now, vitals
        seconds = now - at if now - at <= _RATE_SECONDS else 0.0
        return {
            f"{name}_per_second": _rate(getattr(earlier, name), getattr(vitals, name), seconds)
            for name in ("input_tokens", "output_tokens")
        }


def _rate(earlier: float | None, now: float | None, seconds: float) -> float | None:
    """A counter that is lower than before began anew with its process."""
    if earlier is None or now is None or not seconds or now < earlier:
        return None
    return (now - earlier) / seconds


def _state(told: _Health, vitals: Vitals) -> str:
    if vitals.is_ready is not None or told.status is None:
        tells = vitals.tells_anything and vitals.is_ready is not False
        return "ready" if tells else "loading" if vitals.is_ready is False else "answering"
    return told.status


def _told(body: bytes) -> _Health:
    with suppress(*BAD_JSON):
        return msgspec.json.decode(body, type=_Health)
    return _Health()


async def _get(session: aiohttp.ClientSession, url: str) -> bytes | None:
    """The body, as far as it may be; empty if there is no such page. None: nobody answers."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status in _AWAY:
                return None
            if answer.status >= 400:
                return b""
            return await _read(answer.content)
    except (aiohttp.ClientError, TimeoutError):
        return None


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            return b""
    return bytes(body)
