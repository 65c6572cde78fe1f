"""What can be wrong with a data folder, what to do about it, and what can be mended."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    CORRUPT_DATABASE = "corrupt_database"
    BROKEN_RULE = "broken_rule"
    BROKEN_REFERENCE = "broken_reference"
    MISSING_BYTES = "missing_bytes"
    MISSING_INPUT = "missing_input"
    DAMAGED_BYTES = "damaged_bytes"
    ORPHANED_BYTES = "orphaned_bytes"
    WRONG_COUNTS = "wrong_counts"
    LOST_LINES = "lost_lines"
    WRONG_STATE = "wrong_state"
    STRANDED = "stranded"
    WRONG_MOMENT = "wrong_moment"
    MISSING_ANSWER = "missing_answer"
    STRAY_ANSWER = "stray_answer"
    MISSING_RESULTS = "missing_results"
    WRONG_RESULTS = "wrong_results"
    STRAY_PARTS = "stray_parts"


_RESTORE = "Stop the server and restore a backup."
_BY_REPAIR = {
    Kind.MISSING_BYTES: "--repair forgets it, so that clients get a 404; a backup may have it.",
    Kind.ORPHANED_BYTES: "--repair deletes it.",
    Kind.WRONG_COUNTS: "--repair counts again.",
    Kind.STRANDED: "--repair lets its files be written.",
    Kind.MISSING_ANSWER: "--repair lets the lines run again, or says in the error file that "
    "their answers were lost if the batch no longer runs.",
    Kind.STRAY_ANSWER: "--repair drops it.",
    Kind.STRAY_PARTS: "--repair drops them.",
}
_BY_HAND = {
    Kind.MISSING_INPUT: "What is not run yet will fail (input_gone); a backup may have the file.",
    Kind.DAMAGED_BYTES: "Take the file from a backup, or delete it through the API.",
    Kind.MISSING_RESULTS: "Take the file from a backup, or run the batch's input again.",
    Kind.WRONG_RESULTS: "Take the file from a backup, or run the batch's input again.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, in words for an operator."""

    kind: Kind
    subject: str
    """An id, or a file's name."""
    what: str

    @property
    def is_mendable(self) -> bool:
        return self.kind in _BY_REPAIR

    @property
    def remedy(self) -> str:
        return _BY_REPAIR.get(self.kind) or _BY_HAND.get(self.kind, _RESTORE)
