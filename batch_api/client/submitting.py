"""From a file to a batch."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batch_api.client.input import first_url
from batch_api.errors import Unusable

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Remote


def read_metadata(pairs: list[str]) -> dict[str, str]:
    """Raises Unusable."""
    if odd := [pair for pair in pairs if "=" not in pair]:
        raise Unusable(f"Metadata is given as KEY=VALUE, not as {odd[0]}.")
    return dict(pair.split("=", 1) for pair in pairs)


def submit(
    remote: "Remote",
    path: Path,
    *,
    endpoint: str | None,
    window: str,
    metadata: dict[str, str],
) -> "Batch":
    """Raises Unusable; then nothing of it stays on the server."""
    named = first_url(path)
    file_id = remote.upload(path)
    try:
        return remote.begin(
            file_id=file_id, endpoint=endpoint or named, window=window, metadata=metadata
        )
    except Unusable:
        with suppress(Unusable):
            remote.delete_file(file_id)
        raise
