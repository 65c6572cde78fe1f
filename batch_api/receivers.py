"""The HTTP client for webhooks: the signature, one attempt, and what its answer means."""

import hashlib
import hmac
import socket
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from batch_api.lookups import LookUp, Lookups
from batch_api.upstream import retry_after_seconds

_TIMEOUT_SECONDS = 10.0
_KEEP_SECONDS = 1.0
"""A connection is for a backlog; one that waits for longer may just be closed on the other side."""
_READ_BYTES = 4096
"""Of an answer, or a little more: only its head is looked at."""
_LONGEST_WISH_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    """The same each time that it is sent."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Reception:
    """How a receiver took a message."""

    failure: str | None = None
    """In words for the operator; None: it has taken it."""
    is_for_good: bool = False
    """It wants no other attempt."""
    wish_seconds: float = 0.0
    """Before the next one."""


class Receivers:
    """To be used as a context: leaving it closes all connections."""

    def __init__(
        self,
        secrets: str,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        look_up: LookUp = socket.getaddrinfo,
    ) -> None:
        """`secrets`: `whsec_` and base64; of several, with spaces between them, each one signs."""
        self._keys = [b64decode(secret.removeprefix("whsec_")) for secret in secrets.split()]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEP_SECONDS, resolver=Lookups(look_up)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def tell(self, url: str, message: Message, *, now: float) -> Reception:
        """One attempt. Redirects are not followed; `now`: for the signature, wall time."""
        try:
            response = await self._session.post(
                URL(url, encoded=True),
                data=message.body,
                headers=self._headers(message, int(now)),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reception(_in_words(error))
        response.release()  # closes it, unless all of its body has come with the head
        return _reception(response.status, response.headers)

    def _headers(self, message: Message, timestamp: int) -> dict[str, str]:
        """As https://www.standardwebhooks.com has them."""
        signed = b"%s.%d.%s" % (message.id.encode(), timestamp, message.body)
        digests = [hmac.digest(key, signed, hashlib.sha256) for key in self._keys]
        return {
            "content-type": "application/json",
            "user-agent": "batch-api",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{b64encode(it).decode()}" for it in digests),
        }


def _reception(status: int, headers: Mapping[str, str]) -> Reception:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Reception()
    wish = retry_after_seconds(headers, most=_LONGEST_WISH_SECONDS)
    return Reception(f"answers {status}", status == HTTPStatus.GONE, wish or 0.0)


def _in_words(error: Exception) -> str:
    """Without those of the library, which may tell the URL."""
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, aiohttp.ClientSSLError):
        return "has a certificate that is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "can't be reached"
    return "breaks off, or does not speak HTTP"
