"""What commands ask of the server that owns a data folder: a file each, until it is carried out.

While a server runs, nobody else may write its database: SQLite before 3.51.3 can corrupt it when
one connection writes in the moment in which another one checkpoints. Where no server runs, whoever
gets the folder's lock carries the orders out.
"""

import logging
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store import keys

log = logging.getLogger(__name__)

_UNFINISHED = ".unfinished"


class NewKey(msgspec.Struct, frozen=True, tag=True):
    id: str
    sha256: bytes
    name: str
    tenant: str
    created_at: int
    expires_at: int | None


class Revocation(msgspec.Struct, frozen=True, tag=True):
    id: str
    """Of the key."""
    revoked_at: int


Order = NewKey | Revocation


_decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)


class Orders:
    """A folder of orders, the oldest first. Blocks."""

    def __init__(self, data_folder: Path) -> None:
        self._folder = data_folder / "orders"
        self._folder.mkdir(parents=True, exist_ok=True)

    def leave(self, order: Order) -> Path:
        """On the disk, whole, when this returns; gone once it is carried out."""
        name = f"{time.time_ns():020}-{secrets.token_hex(4)}.json"
        path, unfinished = self._folder / name, self._folder / f"{name}{_UNFINISHED}"
        with unfinished.open("wb") as file:
            file.write(msgspec.json.encode(order))
            file.flush()
            os.fsync(file.fileno())
        # The server may run as somebody else. Nothing in it is secret.
        unfinished.chmod(0o644)
        unfinished.replace(path)
        return path

    def waiting(self) -> Sequence[Path]:
        return sorted(path for path in self._folder.iterdir() if path.suffix == ".json")

    def remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


async def carry_out(session: AsyncSession, paths: Iterable[Path]) -> None:
    """What is carried out twice is as carried out once: a crash may come before `remove`."""
    for path in paths:
        match _read(path):
            case NewKey() as new:
                await keys.add(session, **msgspec.structs.asdict(new))
            case Revocation() as revocation:
                await keys.revoke(session, revocation.id, now=revocation.revoked_at)


def _read(path: Path) -> Order | None:
    """A few hundred bytes; None if they are no order."""
    try:
        return _decoder.decode(path.read_bytes())
    except msgspec.DecodeError:
        log.exception("an order can't be read", extra={"order": path.name})
        return None
