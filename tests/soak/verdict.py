"""Whether a batch that is over is what was ordered."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
from openai.types import Batch

from tests.soak.orders import Kind, Line, Order

_UNRUN = {"cancelled": "batch_cancelled", "expired": "batch_expired"}
_CRASHED = ("worker_crashed", "request_timeout")

Told = dict[str, Any]


def wrong_with(order: Order, batch: Batch) -> Iterator[str]:
    """`order.contents` has the batch's files."""
    output, errors = (
        [msgspec.json.decode(line) for line in order.contents.get(id or "", b"").splitlines()]
        for id in (batch.output_file_id, batch.error_file_id)
    )
    yield from _wrong_status(order, batch)
    yield from _wrong_places(order, output, errors)
    yield from _wrong_counts(order, batch, output, errors)
    lines = {line.custom_id: line for line in order.lines}
    for told in output:
        yield from _wrong_answer(order, lines[told["custom_id"]], told)
    for told in errors:
        yield from _wrong_error(batch.status, lines[told["custom_id"]], told)


def _wrong_status(order: Order, batch: Batch) -> Iterator[str]:
    if order.cancel_was_acknowledged:
        allowed = {"cancelled"}
    elif order.window == "1h":
        allowed = {"completed", "expired"}
    else:
        allowed = {"completed"}
    if batch.status not in allowed:
        yield f"ended {batch.status}, not {' or '.join(allowed)}: {batch.errors}"


def _wrong_places(order: Order, output: list[Told], errors: list[Told]) -> Iterator[str]:
    """Each line once, in one of the two files, in the order of the input."""
    ordered = [line.custom_id for line in order.lines]
    found = [told["custom_id"] for told in output], [told["custom_id"] for told in errors]
    times = Counter(found[0] + found[1])
    if lost := [id for id in ordered if id not in times]:
        yield f"LOST {lost}"
    if doubled := [id for id in times if times[id] > 1]:
        yield f"DOUBLED {doubled}"
    if strange := [id for id in times if id not in set(ordered)]:
        yield f"nobody asked for {strange}"
    for ids in found:
        if ids != [id for id in ordered if id in set(ids)]:
            yield "lines are out of order"


def _wrong_counts(
    order: Order, batch: Batch, output: list[Told], errors: list[Told]
) -> Iterator[str]:
    unrun = sum(_code(told) in _UNRUN.values() for told in errors)
    counts = batch.request_counts
    assert counts is not None
    counted = (counts.total, counts.completed, counts.failed)
    if counted != (len(order.lines), len(output), len(errors) - unrun):
        yield f"counts are {counted}, lines {len(output)} and {len(errors)}, {unrun} not run"


def _wrong_answer(order: Order, line: Line, told: Told) -> Iterator[str]:
    if line.kind != Kind.GOOD:
        yield f"{line.custom_id} is {line.kind} and was answered"
    elif not line.is_answered_by(order.endpoint, told["response"]["body"]):
        yield f"{line.custom_id} has another's answer"


def _wrong_error(status: str, line: Line, told: Told) -> Iterator[str]:
    if _code(told) == _UNRUN.get(status, "none"):
        return
    match line.kind:
        case Kind.REFUSED:
            is_justified = told["response"] and told["response"]["status_code"] == 400
        case Kind.POISON:
            is_justified = _code(told) == "worker_crashed"
        case _:
            is_justified = False
    if not is_justified:
        yield f"{line.custom_id} is {line.kind} and failed: {told['error'] or told['response']}"


def _code(told: Told) -> str | None:
    return told["error"]["code"] if told["error"] else None
