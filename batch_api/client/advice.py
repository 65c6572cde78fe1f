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
    if not sight.total:
        return "None of its lines was read: submit the file again."
    if sight.completed == sight.total:
        return "All of its lines were answered before it ended."
    try:
        are_refused = all(map(_is_refused, remote.lines(batch.id, ["failed"])))
    except Unusable:  # OpenAI's own server tells nothing of lines, nor runs them again
        if batch.error_file_id is None:
            return "What has no answer is to be submitted again."
        return f"`batch-api results {batch.id} --errors` tells why, as far as it is known."
    why = f"`batch-api lines {batch.id} --failed` tells why"
    again = f"`batch-api retry {batch.id}` runs"
    if sight.ended < sight.total:
        return f"{again} what has no answer, in a new batch that keeps the others."
    if are_refused:
        return f"{why}: the requests themselves were refused, and would be again."
    return f"{why}, {again} them again."


def _is_refused(line: "Line") -> bool:
    return line.error is not None and line.error.get("status_code") in REFUSALS
