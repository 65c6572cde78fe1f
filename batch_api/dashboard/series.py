"""A history as charts want it: columns of one length, a value for each step, gaps filled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from batch_api.store.progress import INTERVAL_SECONDS, Delay, History, Point

Value = float | None
"""None: nothing is known of that step."""

_STEPS = (10, 60, 300, 3600, 21_600)
_MOST_STEPS = 360
_COUNTS = ("completed", "failed", "input_tokens", "output_tokens")
_UNKNOWN: dict[str, Value] = dict.fromkeys(_COUNTS)


@dataclass(frozen=True, slots=True)
class Series:
    """Lines and tokens are those of a second; latencies are seconds."""

    step: int
    times: Sequence[int]
    """Wall time at which each step began."""
    completed: Sequence[Value]
    failed: Sequence[Value]
    input_tokens: Sequence[Value]
    output_tokens: Sequence[Value]
    p50: Sequence[Value]
    p95: Sequence[Value]
    p99: Sequence[Value]

    def as_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def step_for(seconds: float) -> int:
    """The shortest that needs not too many of them for so long a time."""
    return next((step for step in _STEPS if seconds <= _MOST_STEPS * step), _STEPS[-1])


def series(
    history: History, *, since: float, until: float, step: int, kept_since: float = 0
) -> Series:
    """Nothing done is zero; no answers have no latency; before `kept_since` nothing is known.

    The last step is left out if it has only begun: it would look like a slump.
    """
    first = int(since) // step * step
    times = range(first, int(until) - INTERVAL_SECONDS + 1, step)
    done = {point.at: point for point in history.points}
    delays = {delay.at: delay for delay in history.delays}
    points = [
        _each_second(done.get(at), min(step, until - at)) if at >= kept_since else _UNKNOWN
        for at in times
    ]
    return Series(
        step,
        list(times),
        *_columns(points, _COUNTS),
        *_columns([_delay_at(delays, at) for at in times], ("p50", "p95", "p99")),
    )


def _columns(rows: Sequence[dict[str, Value]], names: Iterable[str]) -> list[list[Value]]:
    return [[row[name] for row in rows] for name in names]


def _each_second(point: Point | None, seconds: float) -> dict[str, Value]:
    return {name: _rounded(getattr(point, name, 0) / seconds) for name in _COUNTS}


def _delay_at(delays: dict[int, Delay], at: int) -> dict[str, Value]:
    """Of a step shorter than a minute, that of its minute."""
    delay = delays.get(at) or delays.get(at // 60 * 60)
    return {name: _rounded(getattr(delay, name, None)) for name in ("p50", "p95", "p99")}


def _rounded(value: float | None) -> Value:
    return None if value is None else round(value, 4)


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one column, for who does not see the chart."""

    latest: Value
    mean: Value
    highest: Value


def summary(column: Sequence[Value]) -> Summary:
    known = [value for value in column if value is not None]
    if not known:
        return Summary(None, None, None)
    return Summary(column[-1], sum(known) / len(known), max(known))
