"""A history as charts want it: columns of one length, a value for each step, gaps filled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from batch_api.store.progress import (
    INTERVAL_SECONDS,
    LATENCY_INTERVAL_SECONDS,
    Delay,
    History,
    Point,
)

Value = float | None
"""None: nothing is known of that step."""

_STEPS = (10, 60, 300, 3600, 21_600)
_MOST_STEPS = 360
_COUNTS = ("completed", "failed", "input_tokens", "output_tokens")
_QUANTILES = ("p50", "p95", "p99")
_UNKNOWN: dict[str, Value] = dict.fromkeys(_COUNTS)


@dataclass(frozen=True, slots=True)
class Series:
    """Lines and tokens are those of a second; latencies are seconds, told once for their minute."""

    step: int
    times: Sequence[int]
    """Wall time at which each step began, or all of it."""
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
    history: History,
    *,
    since: int,
    until: float,
    step: int,
    kept_since: float = 0,
    shortest: int = INTERVAL_SECONDS,
) -> Series:
    """Nothing done is zero; no answers have no latency; before `kept_since` nothing is known.

    A last step shorter than `shortest` seconds is left out: if it has only begun, it would look
    like a slump.
    """
    first = since // step * step
    steps = range(first, int(until) - shortest + 1, step)
    times = [max(at, since) for at in steps]
    done = {point.at: point for point in history.points}
    points = [
        _each_second(done.get(at), max(min(at + step, until) - begun, 1))
        if at >= kept_since
        else _UNKNOWN
        for at, begun in zip(steps, times, strict=True)
    ]
    delays = _delays_of(steps, history.delays)
    return Series(
        step,
        times,
        *_columns(points, _COUNTS),
        *_columns([_quantiles(delays.get(at)) for at in steps], _QUANTILES),
    )


def _columns(rows: Sequence[dict[str, Value]], names: Iterable[str]) -> list[list[Value]]:
    return [[row[name] for row in rows] for name in names]


def _each_second(point: Point | None, seconds: float) -> dict[str, Value]:
    return {name: _rounded(getattr(point, name, 0) / seconds) for name in _COUNTS}


def _delays_of(steps: range, delays: Iterable[Delay]) -> dict[int, Delay]:
    """By the first step of each, which may be the first of all: what is known of a minute is told
    once, and not for each of its steps.
    """
    firsts = {at - at % LATENCY_INTERVAL_SECONDS: at for at in reversed(steps)}
    return {firsts[delay.at]: delay for delay in delays if delay.at in firsts}


def _quantiles(delay: Delay | None) -> dict[str, Value]:
    return {name: _rounded(getattr(delay, name, None)) for name in _QUANTILES}


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
    return Summary(known[-1], sum(known) / len(known), max(known))
