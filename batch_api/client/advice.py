"""What to do about lines of a batch that is over and have no answer."""

from typing import TYPE_CHECKING

from batch_api.client.following import sight_of
from batch_api.errors import Unusable
from batch_api.schemas.refusals import REFUSALS

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Line, Remote


def advice(remote: "Remote", batch: "Batch") -> str:
    sight = sight_of(batch)
    why = f"`batch-api lines {batch.id} --failed` tells why"
    again = f"`batch-api retry {batch.id}` runs"
    if not sight.total:
        return "None of its lines was read: submit the file again."
    if sight.ended < sight.total:
        return f"{again} what has no answer, in a new batch that keeps the others."
    if _are_all_refused(remote, batch):
        return f"{why}: the requests themselves were refused, and would be again."
    return f"{why}, {again} them again."


def _are_all_refused(remote: "Remote", batch: "Batch") -> bool:
    try:
        return all(map(_is_refused, remote.lines(batch.id, ["failed"])))
    except Unusable:  # OpenAI's own server does not tell
        return False


def _is_refused(line: "Line") -> bool:
    return line.error is not None and line.error.get("status_code") in REFUSALS
