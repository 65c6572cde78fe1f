"""What a form must say of a new file: its purpose, its size, how long it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch_api.api.forms import Form
from batch_api.api.incoming import Incoming
from batch_api.api.jsonl import check_first_line
from batch_api.envelope import validate
from batch_api.schemas.files import NewFile
from batch_api.settings import Settings
from batch_api.store.blobs import BlobWriter

_EXPIRY_FIELDS = {"anchor": "expires_after[anchor]", "seconds": "expires_after[seconds]"}
_BATCH_LIFETIME_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Described:
    """A new file, but for its bytes."""

    filename: str
    purpose: str
    lifetime_seconds: int | None
    """None: it is kept until it is deleted."""


async def receive(incoming: Incoming, writer: BlobWriter, settings: Settings) -> Described:
    """Write the `file` part to `writer`. Raises BadRequest and TooLarge."""

    def limit(texts: Mapping[str, str]) -> int:
        """The purpose decides; until it is known, the larger limit holds."""
        if "purpose" not in texts:
            return max(settings.max_file_bytes, settings.max_batch_file_bytes)
        purpose = validate(NewFile, {"purpose": texts["purpose"]}).purpose
        return settings.max_batch_file_bytes if purpose == "batch" else settings.max_file_bytes

    form = Form(file_part="file", fields=("purpose", *_EXPIRY_FIELDS.values()), limit=limit)
    await form.receive(incoming, writer)
    new = validate(NewFile, _given(form.texts))
    filename = form.filename
    if new.purpose == "batch":
        check_first_line(bytes(form.head), is_whole=len(form.head) == form.file_bytes)
    wished = new.expires_after.seconds if new.expires_after else None
    return Described(filename, new.purpose, lifetime_seconds(new.purpose, wished))


def lifetime_seconds(purpose: str, wished_seconds: int | None) -> int | None:
    if wished_seconds is None and purpose == "batch":
        return _BATCH_LIFETIME_SECONDS
    return wished_seconds


def _given(texts: Mapping[str, str]) -> dict[str, Any]:
    expiry = {
        key: _integer(texts[field]) if key == "seconds" else texts[field]
        for key, field in _EXPIRY_FIELDS.items()
        if field in texts
    }
    purpose = {"purpose": texts["purpose"]} if "purpose" in texts else {}
    return purpose | ({"expires_after": expiry} if expiry else {})


def _integer(text: str) -> int | str:
    """As JSON would have it; what is none is left for the check of its type."""
    return int(text) if text.isascii() and text.removeprefix("-").isdecimal() else text
