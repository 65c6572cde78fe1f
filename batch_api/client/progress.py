"""How far a batch is, on standard error: a bar for a person, now and then a line for a log."""

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batch_api.client.terminal import shown
from batch_api.in_words import counted, status_in_words

_LINE_SECONDS = 10.0
_RATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see of a batch at one moment."""

    status: str
    total: int | None
    """None until its lines are known."""
    completed: int
    failed: int
    output_tokens: int

    @property
    def ended(self) -> int:
        return self.completed + self.failed


class Display(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, sight: Sight, *, waits_for: str | None = None) -> None: ...


def display() -> Display:
    return Bar() if sys.stderr.isatty() else Lines()


class Bar:
    """Lines, lines a second, output tokens a second, failed ones, time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("validating", total=None, facts="")
        self._rates = Rates()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, sight: Sight, *, waits_for: str | None = None) -> None:
        failed = f"[red]{sight.failed} failed[/red] " if sight.failed else ""
        self._progress.update(
            self._task,
            description=_description(sight, waits_for),
            total=sight.total,
            completed=sight.ended,
            facts=failed + self._rates.of(sight, is_waiting=waits_for is not None),
        )


class Lines:
    """One at each new status, and one every ten seconds."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._said = ""
        self._said_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def show(self, sight: Sight, *, waits_for: str | None = None) -> None:
        rates = self._rates.of(sight, is_waiting=waits_for is not None)
        now, description = time.monotonic(), _description(sight, waits_for)
        if description == self._said and now < self._said_at + _LINE_SECONDS:
            return
        self._said, self._said_at = description, now
        print(_line(sight, rates, waits_for), file=sys.stderr, flush=True)


class Rates:
    """Of the last half minute: what was done before says nothing of now."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._seen: deque[_Moment] = deque()

    def of(self, sight: Sight, *, is_waiting: bool) -> str:
        """Nothing of who waits, nor while nothing is done."""
        now = _Moment(self._seconds(), sight.ended, sight.output_tokens)
        if is_waiting or not sight.total:
            self._seen.clear()
        self._seen.append(now)
        while self._seen[0].at < now.at - _RATE_SECONDS:
            self._seen.popleft()
        first = self._seen[0]
        lines, tokens = now.lines - first.lines, now.tokens - first.tokens
        if not lines and not tokens:
            return ""
        seconds = max(now.at - first.at, 0.001)
        return f"{lines / seconds:.1f} lines/s {tokens / seconds:.0f} tok/s"


class _Moment(NamedTuple):
    at: float
    lines: int
    tokens: int


def _line(sight: Sight, rates: str, waits_for: str | None) -> str:
    if not sight.total:
        return _description(sight, waits_for)
    ended = f"{sight.ended} of {counted(sight.total, 'line')}"
    known = ", ".join(filter(None, [ended, f"{sight.failed} failed", rates]))
    waiting = f"; waiting: {shown(waits_for)}" if waits_for else ""
    return f"{status_in_words(sight.status)}: {known}{waiting}"


def _description(sight: Sight, waits_for: str | None) -> str:
    status = status_in_words(sight.status)
    return f"{status}, waiting: {shown(waits_for)}" if waits_for else status
