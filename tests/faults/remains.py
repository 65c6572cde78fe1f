"""What a killed server leaves in its data folder, read without touching it."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batch_api.lifecycle import BatchStatus, RequestState

_ENDED = (RequestState.COMPLETED, RequestState.FAILED)


@dataclass(frozen=True, slots=True)
class Remains:
    """One batch as the database has it."""

    status: BatchStatus
    total: int | None
    completed: int
    failed: int
    states: dict[str, RequestState]
    """By custom_id."""
    answered: frozenset[str]
    """The custom_ids whose answers are kept in the database."""
    is_trimmed: bool

    @property
    def ended(self) -> frozenset[str]:
        """The custom_ids of what is not to be run again."""
        return frozenset(id for id, state in self.states.items() if state in _ENDED)

    @property
    def leased(self) -> frozenset[str]:
        """The custom_ids of what was in flight, or about to be, as far as the database knows."""
        return frozenset(id for id, state in self.states.items() if state == RequestState.LEASED)

    def check(self) -> None:
        """The counts agree with the rows, and each ended row has its answer."""
        counted = Counter(self.states.values())
        assert self.completed == counted[RequestState.COMPLETED]
        assert self.failed == counted[RequestState.FAILED]
        assert self.total in (None, len(self.states))
        if not self.is_trimmed:
            assert self.answered <= self.ended
            assert self.answered == self.ended or self.status.is_final


def read_remains(data_dir: Path, batch_id: str) -> Remains:
    with _copy_of_database(data_dir) as database:
        number, status, total, completed, failed, trimmed_at = database.execute(
            "SELECT number, status, total, completed, failed, trimmed_at FROM batches WHERE id = ?",
            [batch_id],
        ).fetchone()
        requests = database.execute(
            "SELECT custom_id, state, answers.request_id IS NOT NULL FROM requests"
            " LEFT JOIN answers ON answers.request_id = requests.id WHERE batch_number = ?",
            [number],
        ).fetchall()
    return Remains(
        status=BatchStatus(status),
        total=total,
        completed=completed,
        failed=failed,
        states={custom_id: RequestState(state) for custom_id, state, _ in requests},
        answered=frozenset(custom_id for custom_id, _, is_answered in requests if is_answered),
        is_trimmed=trimmed_at is not None,
    )


@contextmanager
def _copy_of_database(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """Of the WAL too: opening the original would recover it before the server does."""
    with tempfile.TemporaryDirectory() as name:
        for file in data_dir.glob("batch-api.db*"):
            shutil.copy(file, name)
        with closing(sqlite3.connect(Path(name) / "batch-api.db")) as database:
            ((verdict,),) = database.execute("PRAGMA quick_check").fetchall()
            assert verdict == "ok", verdict
            yield database
