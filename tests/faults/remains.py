"""What a killed server leaves of a batch in its data folder, read without touching it."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from batch_api.lifecycle import BatchStatus, RequestState

_ENDED = (RequestState.COMPLETED, RequestState.FAILED)
_STATES = """
    SELECT custom_id, state FROM requests JOIN batches ON batch_number = number
    WHERE batches.id = ?
"""


@dataclass(frozen=True, slots=True)
class Remains:
    """One batch as the database has it."""

    status: BatchStatus
    states: dict[str, RequestState]
    """By custom_id."""

    @property
    def ended(self) -> frozenset[str]:
        """The custom_ids of what is not to be run again."""
        return frozenset(id for id, state in self.states.items() if state in _ENDED)

    @property
    def leased(self) -> frozenset[str]:
        """The custom_ids of what was in flight, or about to be, as far as the database knows."""
        return frozenset(id for id, state in self.states.items() if state == RequestState.LEASED)


def read_remains(data_dir: Path, batch_id: str) -> Remains:
    with tempfile.TemporaryDirectory() as name:
        # Of the WAL too: opening the original would recover it before the server does.
        for file in data_dir.glob("batch-api.db*"):
            shutil.copy(file, name)
        with closing(sqlite3.connect(Path(name) / "batch-api.db")) as database:
            status = "SELECT status FROM batches WHERE id = ?"
            ((found,),) = database.execute(status, [batch_id]).fetchall()
            states = database.execute(_STATES, [batch_id]).fetchall()
    return Remains(BatchStatus(found), {id: RequestState(state) for id, state in states})
