"""Who is signed in on the dashboard: a cookie that names a key, and that only this server can make.

Nothing is stored but one secret, and the ids of sessions that were ended before their time; in the
data folder and in no backup. So sessions outlive a restart, end with their key or when somebody
signs out, and can't be made from a copy of the database.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from batch_api.api.keys import Keyring
from batch_api.clock import Clock
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.store import folders
from batch_api.store.keys import Key

_log = logging.getLogger(__name__)

COOKIE = "batch_api_session"
SESSION_SECONDS = 7 * 24 * 3600
SECRET_FILE = "session.secret"  # noqa: S105 its name
ENDED_FILE = "ended.sessions"

_SECRET_BYTES = 32
_OWN = 0o600
"""For its owner's eyes alone."""
_ID_BYTES = 16
_MOMENT_DIGITS = 15

Ended = dict[str, int]
"""Until when each id would have been good."""


class _Token(NamedTuple):
    key_id: str
    id: str
    until: int
    signature: str

    @classmethod
    def read(cls, text: str) -> "_Token | None":
        match text.split("."):
            case [key_id, id, until, signature] if until.isdecimal() and text.isascii():
                return cls(key_id, id, int(until[:_MOMENT_DIGITS]), signature)
        return None


class Sessions:
    def __init__(
        self,
        secret: bytes,
        keyring: Keyring,
        clock: Clock,
        *,
        folder: Path,
        ended: Ended,
    ) -> None:
        self._secret = secret
        self._ended_path = folder / ENDED_FILE
        self._ended = ended
        self._writing = asyncio.Lock()
        self._keyring = keyring
        self._clock = clock

    @classmethod
    async def open(cls, data_dir: Path, keyring: Keyring, clock: Clock) -> Self:
        try:
            ended = await asyncio.to_thread(_ended, data_dir / ENDED_FILE)
            secret = await asyncio.to_thread(_secret, data_dir / SECRET_FILE)
        except (OSError, *BAD_JSON) as error:
            _log.warning("sessions end with this process", extra={"reason": str(error)})
            secret, ended = secrets.token_bytes(_SECRET_BYTES), {}
        return cls(secret, keyring, clock, folder=data_dir, ended=ended)

    def start(self, key: Key) -> str:
        """What the cookie has to hold."""
        id = secrets.token_hex(_ID_BYTES)
        until = int(self._clock.now()) + SESSION_SECONDS
        return f"{key.id}.{id}.{until}.{self._sign(key, id, until)}"

    def find(self, text: str) -> Key | None:
        """The key of a session that is neither made up nor over, and whose key still opens."""
        token = _Token.read(text)
        if token is None or token.until <= self._clock.now() or token.id in self._ended:
            return None
        key = self._keyring.valid(token.key_id)
        if key is None:
            return None
        signature = self._sign(key, token.id, token.until)
        return key if hmac.compare_digest(token.signature, signature) else None

    async def end(self, text: str) -> None:
        """Whoever has a copy of that cookie is out too. Raises OSError if it can't be written."""
        token = _Token.read(text)
        if token is None or self.find(text) is None:
            return
        now = self._clock.now()
        async with self._writing:
            ended = {id: until for id, until in self._ended.items() if until > now}
            self._ended = ended | {token.id: token.until}
            content = msgspec.json.encode(self._ended)
            await asyncio.to_thread(folders.replace, self._ended_path, content, mode=_OWN)

    def _sign(self, key: Key, id: str, until: int) -> str:
        """The key's hash is in it: a key of the same id with another secret is another one."""
        signed = b"\n".join([key.id.encode(), id.encode(), str(until).encode(), key.sha256])
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
    folders.replace(path, secret, mode=_OWN)
    return secret


def _ended(path: Path) -> Ended:
    """Raises OSError and BAD_JSON."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ended)
    except FileNotFoundError:
        return {}
