"""Who is signed in on the dashboard: a cookie that names a key, and that only this server can make.

Nothing is stored for it but one secret, in the data folder and in no backup: sessions outlive a
restart, end with their key, and can't be made from a copy of the database.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from pathlib import Path
from typing import Self

from batch_api.api.keys import Keyring
from batch_api.clock import Clock
from batch_api.store import folders
from batch_api.store.keys import Key

_log = logging.getLogger(__name__)

COOKIE = "batch_api_session"
SESSION_SECONDS = 30 * 24 * 3600
SECRET_FILE = "session.secret"  # noqa: S105 its name

_SECRET_BYTES = 32
_PARTS = 3


class Sessions:
    def __init__(self, secret: bytes, keyring: Keyring, clock: Clock) -> None:
        self._secret = secret
        self._keyring = keyring
        self._clock = clock

    @classmethod
    async def open(cls, data_dir: Path, keyring: Keyring, clock: Clock) -> Self:
        try:
            secret = await asyncio.to_thread(_secret, data_dir / SECRET_FILE)
        except OSError as error:
            _log.warning("sessions end with this process", extra={"reason": str(error)})
            secret = secrets.token_bytes(_SECRET_BYTES)
        return cls(secret, keyring, clock)

    def start(self, key: Key) -> str:
        """What the cookie has to hold."""
        until = int(self._clock.now()) + SESSION_SECONDS
        return f"{key.id}.{until}.{self._sign(key, until)}"

    def find(self, token: str) -> Key | None:
        """The key of a session that is neither made up nor over, and whose key still opens."""
        parts = token.split(".")
        if len(parts) != _PARTS or not parts[1].isdecimal() or not token.isascii():
            return None
        id, until, signature = parts[0], int(parts[1][:15]), parts[2]
        key = self._keyring.valid(id)
        if key is None or until <= self._clock.now():
            return None
        return key if hmac.compare_digest(signature, self._sign(key, until)) else None

    def _sign(self, key: Key, until: int) -> str:
        """The key's hash is in it: a key of the same id with another secret is another one."""
        signed = b"\n".join([key.id.encode(), str(until).encode(), key.sha256])
        return hmac.new(self._secret, signed, hashlib.sha256).hexdigest()


def _secret(path: Path) -> bytes:
    """What the file holds; a fresh one, if it holds none."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = b""
    return found if len(found) == _SECRET_BYTES else _fresh(path)


def _fresh(path: Path) -> bytes:
    secret = secrets.token_bytes(_SECRET_BYTES)
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600, exist_ok=False)
    beside.write_bytes(secret)
    folders.sync(beside)
    beside.rename(path)
    folders.sync(path.parent)
    return secret
