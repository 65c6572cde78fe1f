"""All that a client does with the server in one go, resumable: it asks again for what it never
heard of.
"""

from collections import Counter

from openai import NotFoundError, OpenAI

from tests.faults.job import Job
from tests.server import Server
from tests.standin import HANG

_LINES = 3


class Day:
    """One batch runs and is deleted, and so is its input; another comes in parts, is cancelled."""

    def __init__(self, name: str) -> None:
        """Texts of its lines begin with `name`."""
        self.run_ids, cancelled_ids = (
            [f"{name}-{kind}-{number}" for number in range(_LINES)] for kind in ("run", "cancelled")
        )
        self._run = Job(self.run_ids)
        self._cancelled = Job(
            cancelled_ids, in_parts=True, faults=dict.fromkeys(cancelled_ids, HANG)
        )
        self._output_file_id: str | None = None
        self._is_cancelled = False
        self._deletes: Counter[str] = Counter()
        self._deleted: set[str] = set()

    def go(self, server: Server, client: OpenAI) -> None:
        """On to the end, and check there that nothing is lost, doubled or undone."""
        self._run.create(client)
        if self._output_file_id is None:
            self._output_file_id = self._run.complete(server, client).output_file_id
        self._cancelled.create(client)
        if not self._is_cancelled:
            assert client.batches.cancel(self._cancelled.batch_id).status.startswith("cancel")
            self._is_cancelled = True
        assert self._cancelled.end(server, client).status == "cancelled"
        self._delete(client, f"/files/{self._run.file_id}")
        self._delete(client, f"/batches/{self._run.batch_id}")
        self._check(client)

    def _delete(self, client: OpenAI, path: str) -> None:
        """What was asked for and not acknowledged may have been done."""
        if path in self._deleted:
            return
        self._deletes[path] += 1
        try:
            client.delete(path, cast_to=object)
        except NotFoundError:
            assert self._deletes[path] > 1
        self._deleted.add(path)

    def _check(self, client: OpenAI) -> None:
        batches = {batch.id for batch in client.batches.list()}
        assert batches == {self._cancelled.batch_id}
        cancelled = client.batches.retrieve(self._cancelled.batch_id)
        self._cancelled.check(client, cancelled)
        files = {file.id for file in client.files.list()}
        results = {self._output_file_id, cancelled.error_file_id}
        assert files == {self._cancelled.file_id, *results}
