"""What commands ask of the server that owns a data folder: a file each, until it is carried out.

While a server runs, nobody else may write its database: SQLite before 3.51.3 can corrupt it when
one connection writes in the moment in which another one checkpoints. Where no server runs, whoever
gets the folder's lock carries the orders out.
"""

import logging
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store import folders, keys

log = logging.getLogger(__name__)

_REFUSED = ".refused"

_NOT_READ = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    PermissionError,
    IsADirectoryError,
)
_NOT_TAKEN = (IntegrityError, DataError, OverflowError, UnicodeEncodeError)
"""By the database, whenever it is asked."""


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
        folders.make(data_folder)
        if not self._folder.is_dir():
            self._folder.mkdir(exist_ok=True)  # for a server to read that runs as somebody else
            folders.sync(data_folder)
        self._stuck: set[Path] = set()
        """They can't be removed, and were seen to."""

    def leave(self, order: Order) -> Path:
        """On the disk, whole, when this returns; gone once it is carried out."""
        name = f"{time.time_ns():020}-{secrets.token_hex(4)}.json"
        path = self._folder / name
        # The server may run as somebody else. Nothing in it is secret.
        folders.replace(path, msgspec.json.encode(order), mode=0o644)
        return path

    def waiting(self) -> Sequence[Path]:
        found = (path for path in self._folder.iterdir() if path.suffix == ".json")
        return sorted(path for path in found if path not in self._stuck)

    def remove(self, paths: Iterable[Path], *, refused: Collection[Path] = ()) -> None:
        """The refused are kept, under another name."""
        for path in paths:
            try:
                if path in refused:
                    path.replace(path.with_name(path.name + _REFUSED))
                else:
                    path.unlink(missing_ok=True)
            except OSError:
                log.exception("an order can't be removed", extra={"order": path.name})
                self._stuck.add(path)


@dataclass(frozen=True, slots=True)
class CarriedOut:
    done: list[Order] = field(default_factory=list)
    refused: set[Path] = field(default_factory=set)


async def carry_out(session: AsyncSession, paths: Iterable[Path]) -> CarriedOut:
    """Each for itself.

    What is carried out twice is as carried out once: a crash may come before `remove`.
    """
    carried = CarriedOut()
    for path in paths:
        try:
            order = _read(path)
            async with session.begin_nested():
                await _carry_out_one(session, order)
        except (*_NOT_READ, *_NOT_TAKEN):
            log.exception("an order is refused", extra={"order": path.name})
            carried.refused.add(path)
        else:
            carried.done.append(order)
    return carried


async def _carry_out_one(session: AsyncSession, order: Order) -> None:
    match order:
        case NewKey() as new:
            await keys.add(session, **msgspec.structs.asdict(new))
        case Revocation() as revocation:
            await keys.revoke(session, revocation.id, now=revocation.revoked_at)


def _read(path: Path) -> Order:
    """A few hundred bytes. Raises one of _NOT_READ if they are no order."""
    return _decoder.decode(path.read_bytes())
