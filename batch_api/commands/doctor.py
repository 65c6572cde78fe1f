"""`batch-api doctor`: says whether a data folder is all right, and mends what can be mended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from batch_api.clock import Clock
from batch_api.in_words import counted
from batch_api.schemas.ids import line_id
from batch_api.schemas.lines import unanswered_line
from batch_api.store.inspecting.findings import Finding
from batch_api.store.inspection import Inspection, inspect
from batch_api.store.repair import Repair, repair

_ALL_RIGHT = 0
_SOMETHING_IS_WRONG = 1

_NOUNS = {"batches": "batch", "requests": "request", "files": "file", "blobs": "blob"}


def doctor(data_dir: Path, *, deep: bool, mends: bool, as_json: bool) -> int:
    """Prints what it found and returns the exit code. Raises Unusable."""
    now = Clock().now()
    if mends:
        done = repair(data_dir, deep=deep, now=now, lost=_lost)
    else:
        done = Repair((), None, inspect(data_dir, deep=deep, now=now))
    print(_as_json(done) if as_json else "\n".join(_sentences(data_dir, done, deep=deep)))
    return _ALL_RIGHT if done.left.is_all_right else _SOMETHING_IS_WRONG


def _lost(batch_id: str, line: int, custom_id: str) -> bytes:
    return unanswered_line(
        id=line_id(batch_id, line),
        custom_id=custom_id,
        code="answer_lost",
        message="The answer was lost by damage to the server's database.",
    )


def _sentences(data_dir: Path, done: Repair, *, deep: bool) -> Iterator[str]:
    left = done.left
    yield f"Looked at {data_dir}{', where a server is at work' if left.is_running else ''}:"
    counts = ", ".join(counted(number, _NOUNS[thing]) for thing, number in left.looked_at.items())
    yield f"  {counts or 'the database'}; {'every byte' if deep else 'no content (--deep does)'}."
    for finding in done.mended:
        yield f"Mended: {finding.subject}: {finding.what}"
    if done.copy is not None:
        yield f"The database as it was before is kept as {done.copy}."
    for finding in left.findings:
        yield f"Wrong: {finding.subject}: {finding.what} {finding.remedy}"
    yield from (f"Note: {remark}" for remark in left.remarks)
    yield _verdict(left)


def _verdict(left: Inspection) -> str:
    if left.is_all_right:
        return "All is right."
    mendable = sum(finding.is_mendable for finding in left.findings)
    if len(left.findings) == 1:
        return f"One thing is wrong; --repair {'can mend it' if mendable else 'does not mend it'}."
    return f"{len(left.findings)} things are wrong; --repair can mend {mendable} of them."


def _as_json(done: Repair) -> str:
    left = done.left
    told = {
        "is_all_right": left.is_all_right,
        "is_running": left.is_running,
        "looked_at": left.looked_at,
        "findings": [_finding(finding) for finding in left.findings],
        "mended": [_finding(finding) for finding in done.mended],
        "copy": None if done.copy is None else str(done.copy),
        "remarks": left.remarks,
    }
    return msgspec.json.format(msgspec.json.encode(told)).decode()


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "subject": finding.subject,
        "what": finding.what,
        "remedy": finding.remedy,
        "is_mendable": finding.is_mendable,
    }
