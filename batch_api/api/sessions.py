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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from batch_api.api.keys import Keyring
from batch_api.clock import Clock
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.store import folders
from batch_api.store.keys import Key

_log = logging.getLogger(__name__)

COOKIE = "batch_api_session"
SESSION_SECONDS = 7 * 24 * 3600
"""After the last use, or half of it less: a session is renewed in its second half."""
LONGEST_SECONDS = 30 * 24 * 3600
"""From the sign-in on, however often it is renewed."""
SECRET_FILE = "session.secret"  # noqa: S105 its name
ENDED_FILE = "ended.sessions"

_SECRET_BYTES = 32
_OWN = 0o600
"""For its owner's eyes alone."""
_ID_BYTES = 16
_MOMENT_DIGITS = 15

Ended = dict[str, int]
"""Until when each id could have been good, renewed or not."""


@dataclass(frozen=True, slots=True)
class Session:
    token: str
    """What the cookie has to hold."""
    seconds: int
    """For how long it is good."""
    is_secure: bool
    """It began over HTTPS, and its cookie is for that alone."""


@dataclass(frozen=True, slots=True)
class _Token:
    key_id: str
    id: str
    began: int
    until: int
    is_secure: bool

    @classmethod
    def read(cls, text: str) -> "tuple[_Token, str] | None":
        """With its signature, which nobody has looked at."""
        match text.split("."):
            case [key_id, id, began, until, "https" | "http" as kind, signature] if (
                began.isdecimal() and until.isdecimal() and text.isascii()
            ):
                moments = int(began[:_MOMENT_DIGITS]), int(until[:_MOMENT_DIGITS])
                return cls(key_id, id, *moments, kind == "https"), signature
        return None

    @property
    def ends_for_good_at(self) -> int:
        return self.began + LONGEST_SECONDS

    def __str__(self) -> str:
        kind = "https" if self.is_secure else "http"
        return f"{self.key_id}.{self.id}.{self.began}.{self.until}.{kind}"


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

    def start(self, key: Key, *, is_secure: bool) -> Session:
        now = int(self._clock.now())
        id = secrets.token_hex(_ID_BYTES)
        return self._session(key, _Token(key.id, id, now, now + SESSION_SECONDS, is_secure))

    def find(self, text: str) -> Key | None:
        """The key of a session that is neither made up nor over, and whose key still opens."""
        found = self._find(text)
        return found and found[1]

    def renewed(self, text: str) -> Session | None:
        """The same one with a later end, if it is in its second half and may have one."""
        if (found := self._find(text)) is None:
            return None
        token, key = found
        now = int(self._clock.now())
        until = min(now + SESSION_SECONDS, token.ends_for_good_at)
        is_late = token.until - now < SESSION_SECONDS / 2
        may_last = until > token.until
        return self._session(key, replace(token, until=until)) if is_late and may_last else None

    async def end(self, text: str) -> None:
        """Whoever has a copy of that cookie is out too, or one that was renewed.

        Raises OSError if it can't be written.
        """
        if (found := self._find(text)) is None:
            return
        token, _ = found
        now = self._clock.now()
        async with self._writing:
            ended = {id: until for id, until in self._ended.items() if until > now}
            self._ended = ended | {token.id: token.ends_for_good_at}
            content = msgspec.json.encode(self._ended)
            await asyncio.to_thread(folders.replace, self._ended_path, content, mode=_OWN)

    def _find(self, text: str) -> tuple[_Token, Key] | None:
        read = _Token.read(text)
        if read is None:
            return None
        token, signature = read
        key = self._keyring.valid(token.key_id)
        if token.until <= self._clock.now() or token.id in self._ended or key is None:
            return None
        return (token, key) if hmac.compare_digest(signature, self._sign(key, token)) else None

    def _session(self, key: Key, token: _Token) -> Session:
        seconds = token.until - int(self._clock.now())
        return Session(f"{token}.{self._sign(key, token)}", seconds, token.is_secure)

    def _sign(self, key: Key, token: _Token) -> str:
        """The key's hash is in it: a key of the same id with another secret is another one."""
        signed = b"\n".join([str(token).encode(), key.sha256])
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
