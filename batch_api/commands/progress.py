"""What `run` shows while it runs, and what it says at the end."""

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batch_api.store.tables import BatchRow

_REASONS = 5


class ProgressBar:
    """Lines, lines a second, output tokens a second, time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("validating", total=None, rates="")
        self._first: tuple[float, int, int] | None = None

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

    def show(self, batch: BatchRow, *, waits_for: str | None = None) -> None:
        status = batch.status.replace("_", " ")
        self._progress.update(
            self._task,
            description=f"{status}, waiting: {waits_for}" if waits_for else status,
            total=batch.total,
            completed=batch.completed + batch.failed,
            rates=self._rates(batch),
        )

    def _rates(self, batch: BatchRow) -> str:
        """Since the first look: what an earlier call did does not count."""
        seen = (time.monotonic(), batch.completed + batch.failed, batch.output_tokens)
        if self._first is None or batch.total is None:
            self._first = seen
        began, lines, tokens = self._first
        seconds = max(seen[0] - began, 0.001)
        return f"{(seen[1] - lines) / seconds:.1f} lines/s {(seen[2] - tokens) / seconds:.0f} tok/s"


def summary(batch: BatchRow, output: Path, errors: Path) -> str:
    lines = f"{batch.completed} of {batch.total} lines answered, in {output}."
    tokens = f"{batch.input_tokens} tokens read, {batch.output_tokens} written."
    if not batch.failed:
        return f"{lines} {tokens}"
    return "\n".join(
        [f"{lines} {tokens}", f"{batch.failed} failed, in {errors}:", *_reasons(errors)]
    )


class _Response(msgspec.Struct):
    status_code: int
    body: Any = None

    @property
    def reason(self) -> str:
        """Upstreams are free in what they say: `{"error": {"message"}}`, `{"error"}`, or less."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str) and message:
            return f"{self.status_code} {message}"
        return f"status {self.status_code}"


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorLine(msgspec.Struct):
    response: _Response | None = None
    error: _Error | None = None

    @property
    def reason(self) -> str:
        if self.response is not None:
            return self.response.reason
        return self.error.message if self.error else "unknown"


def _reasons(errors: Path) -> list[str]:
    """The most frequent ones first."""
    decode = msgspec.json.Decoder(_ErrorLine, strict=False).decode
    with errors.open("rb") as lines:
        reasons = Counter(decode(line).reason for line in lines)
    return [f"  {count} x {reason}" for reason, count in reasons.most_common(_REASONS)]
