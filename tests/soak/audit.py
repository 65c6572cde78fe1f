"""What a stopped server left, against what the upstreams served."""

import time
import urllib.error
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from batch_api.lifecycle import RequestState
from batch_api.store.inspecting.findings import Kind
from batch_api.store.inspecting.folder import opened
from batch_api.store.inspection import inspect
from tests.server import StandinProcess

_ENDED = (RequestState.COMPLETED, RequestState.FAILED)
_UNENDED = (RequestState.PENDING, RequestState.LEASED)
_LEFT_SECONDS = 2
_POLL_SECONDS = 0.05


class Audit:
    def __init__(self, data_dir: Path, upstreams: Sequence[StandinProcess]) -> None:
        self.complaints: list[str] = []
        self.in_flight_at_stops = 0
        self.sent: Counter[str] = Counter()
        """How often each line was received by an upstream."""
        self.answered: Counter[str] = Counter()
        """How often it was answered, and well."""
        self._data_dir = data_dir
        self._upstreams = upstreams
        self._looked_at = [0] * len(upstreams)
        """Entries of the journals."""
        self._ended: set[str] = set()

    def look(self, *, is_killed: bool) -> None:
        """While no server runs. A killed one may leave bytes that its next start sweeps."""
        for upstream in self._upstreams:
            _wait_until_left(upstream)
        inspection = inspect(self._data_dir)
        for finding in inspection.findings:
            if not (is_killed and finding.kind == Kind.ORPHANED_BYTES):
                self.complaints.append(f"{finding.kind} {finding.subject}: {finding.what}")
        sent = self._read_journals()
        if again := sorted(self._ended & sent):
            self.complaints.append(f"run again although they had ended: {again}")
        self._ended |= self._read(*_ENDED)
        self.in_flight_at_stops += len(sent & self._read(*_UNENDED))

    @property
    def answered_again(self) -> int:
        """Answers that were given although the same had been given before."""
        return self.answered.total() - len(self.answered)

    def _read_journals(self) -> set[str]:
        """The lines received since the last look."""
        sent: set[str] = set()
        for number, upstream in enumerate(self._upstreams):
            entries = upstream.seen()
            for event, text in entries[self._looked_at[number] :]:
                if event == "received":
                    self.sent[text] += 1
                    sent.add(text)
                elif event == "answered":
                    self.answered[text] += 1
            self._looked_at[number] = len(entries)
        return sent

    def _read(self, *states: RequestState) -> set[str]:
        """The lines in one of these two states."""
        with opened(self._data_dir) as folder:
            rows = folder.database.execute(
                "SELECT custom_id FROM requests WHERE state IN (?, ?)", states
            )
            return {custom_id for (custom_id,) in rows}


def _wait_until_left(upstream: StandinProcess) -> None:
    """What a killed client sent is then in the journal; one that hangs itself is not waited for."""
    deadline = time.monotonic() + _LEFT_SECONDS
    while time.monotonic() < deadline:
        try:
            if upstream.stats().connections <= 1:
                return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(_POLL_SECONDS)
