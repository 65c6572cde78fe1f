"""From a file to a batch."""

import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batch_api.client.input import first_url
from batch_api.client.patience import PATIENCE_SECONDS, patiently
from batch_api.client.sentences import Away
from batch_api.client.terminal import say
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
    patience_seconds: float = PATIENCE_SECONDS,
) -> "Batch":
    """Raises Unusable; then nothing of it stays on the server, unless the batch may be there."""
    endpoint = endpoint or first_url(path)
    file_id, key = remote.upload(path), uuid.uuid4().hex

    def begin() -> "Batch":
        return remote.begin(
            file_id=file_id, endpoint=endpoint, window=window, metadata=metadata, key=key
        )

    try:
        return patiently(begin, saying=lambda why: say(f"waiting: {why}"), seconds=patience_seconds)
    except Away as away:
        raise Unusable(f"{away} {_may_have_begun(file_id)}") from away
    except KeyboardInterrupt:
        say(_may_have_begun(file_id))
        raise
    except Unusable:
        with suppress(Unusable):
            remote.delete_file(file_id)
        raise


def _may_have_begun(file_id: str) -> str:
    return (
        "The batch may have begun: `batch-api batches` tells. "
        f"If it has not, its input {file_id} stays on the server."
    )
