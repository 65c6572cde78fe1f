"""Who may come in, and as whom: the keys of the settings and of the database."""

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Self

from batch_api.api.orders import carried_out
from batch_api.api.refusals import Refusals
from batch_api.clock import Clock
from batch_api.errors import APIError
from batch_api.settings import Settings
from batch_api.store import keys
from batch_api.store.database import Database
from batch_api.store.keys import Key
from batch_api.store.orders import NewKey, Order, Orders, Revocation
from batch_api.store.tenancy import DEFAULT_TENANT
from batch_api.store.trouble import StoreError, passes
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_SCHEME = "bearer"
_OF_SETTINGS = "settings"
_ROUND_SECONDS = 0.25
_PATIENCE_SECONDS = 5
_USE_SECONDS = 60
_INDEXED_BYTES = 8
"""Of a hash: enough to find a key by, not to know it by."""


class InvalidKey(APIError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": "Bearer"})


class Keyring:
    """All keys, in memory: nobody but this process changes them, by the orders that commands leave.

    To be opened before anything is served; `run` takes the orders that come later.
    """

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._orders = Orders(settings.data_dir)
        self._refusals = Refusals(clock)
        secret = settings.api_key
        self._of_settings = (
            []
            if secret is None
            else [
                Key(_OF_SETTINGS, hashed(secret.get_secret_value().encode()), DEFAULT_TENANT, None)
            ]
        )
        self._keys: Mapping[bytes, Key] = {}
        self._by_id: Mapping[str, Key] = {}
        self._is_any = True
        self._used: set[str] = set()
        self._use_recorded_at = clock.monotonic()

    @classmethod
    async def open(cls, database: Database, settings: Settings, clock: Clock) -> Self:
        keyring = cls(database, settings, clock)
        await keyring._record_key_of_settings()
        if not await keyring.take_orders_once():
            await keyring._load()
        return keyring

    @property
    def is_needed(self) -> bool:
        """Once there has been a key, one is needed."""
        return self._is_any

    def admit(self, authorization: str, *, address: str | None = None) -> str:
        """The tenant of whoever sent this header, in which each character is a byte.

        Raises InvalidKey.
        """
        try:
            return self._admit(authorization)
        except InvalidKey:
            self._refusals.note(address)
            raise

    def _admit(self, authorization: str) -> str:
        if not self._is_any:
            return DEFAULT_TENANT
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != _SCHEME:
            raise InvalidKey(
                "You didn't provide an API key: send it as 'Authorization: Bearer KEY'."
            )
        key = self.find(secret.strip().encode("latin-1"))
        if key is None:
            raise InvalidKey("Incorrect API key provided.")
        self.mark_used(key)
        return key.tenant

    def find(self, secret: bytes) -> Key | None:
        """None if it is unknown, revoked or too old."""
        sha256 = hashed(secret)
        key = self._keys.get(sha256[:_INDEXED_BYTES])
        if key is None or not hmac.compare_digest(key.sha256, sha256):
            return None
        return self._unless_over(key)

    def valid(self, id: str) -> Key | None:
        """The key of that id; None if it is unknown, revoked or too old."""
        key = self._by_id.get(id)
        return None if key is None else self._unless_over(key)

    def mark_used(self, key: Key) -> None:
        self._used.add(key.id)

    async def run(self, stop: asyncio.Event) -> None:
        seconds = _ROUND_SECONDS
        while not await wait(stop, seconds):
            seconds = _ROUND_SECONDS if await self._round() else _PATIENCE_SECONDS
            self._refusals.tell_once()
        self._refusals.tell_once(at_once=True)
        self._use_recorded_at = -math.inf
        await self._round()

    async def take_orders_once(self) -> int:
        """Carry out what commands have asked for; return how much that was.

        An order is removed when a key that it revokes lets nobody in any more.
        """
        async with carried_out(self._orders, self._database) as done:
            if done:
                await self._load()
                _tell(done)
        return len(done)

    async def record_use_once(self) -> None:
        """When keys were used: for whoever lists them, and no more often than each minute."""
        now = self._clock.monotonic()
        if not self._used or now - self._use_recorded_at < _USE_SECONDS:
            return
        used, self._used = self._used, set()
        try:
            async with self._database.write.begin() as session:
                await keys.mark_used(session, used, now=self._clock.now())
        except StoreError:
            self._used |= used
            raise
        self._use_recorded_at = now

    def _unless_over(self, key: Key) -> Key | None:
        is_over = key.expires_at is not None and key.expires_at <= self._clock.now()
        return None if is_over else key

    async def _round(self) -> bool:
        """Whether it came through. Raises what does not pass by itself."""
        try:
            await self.take_orders_once()
            await self.record_use_once()
        except (OSError, StoreError) as error:
            if not passes(error):
                raise
            log.error("orders and the use of keys wait", exc_info=error)
            return False
        return True

    async def _record_key_of_settings(self) -> None:
        """That there is one, for when it is gone from them: it opens nothing, nor is its hash kept.

        Somebody thought it up, and it may be guessed.
        """
        if not self._of_settings:
            return
        now = int(self._clock.now())
        async with self._database.write.begin() as session:
            await keys.add(
                session,
                id=_OF_SETTINGS,
                sha256=secrets.token_bytes(32),
                name="BATCH_API_API_KEY",
                tenant=DEFAULT_TENANT,
                created_at=now,
                expires_at=None,
            )
            await keys.revoke(session, _OF_SETTINGS, now=now)

    async def _load(self) -> None:
        async with self._database.read() as session:
            valid = [*await keys.valid(session), *self._of_settings]
            self._is_any = bool(self._of_settings) or await keys.is_any(session)
        self._keys = {key.sha256[:_INDEXED_BYTES]: key for key in valid}
        self._by_id = {key.id: key for key in valid}


def _tell(done: Sequence[Order]) -> None:
    for order in done:
        match order:
            case NewKey():
                log.info("a key was made", extra={"key": order.id, "tenant": order.tenant})
            case Revocation():
                log.info("a key was revoked", extra={"key": order.id})


def hashed(secret: bytes) -> bytes:
    """Not slow on purpose, nor salted: nobody guesses a secret of 256 bits."""
    return hashlib.sha256(secret).digest()
