"""What `run` shows while it runs, and what it says at the end."""

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batch_api.schemas.error_lines import read_error_line
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


def _reasons(errors: Path) -> list[str]:
    """The most frequent ones first."""
    with errors.open("rb") as lines:
        reasons = Counter(str(read_error_line(line).reason) for line in lines)
    return [f"  {count} x {reason}" for reason, count in reasons.most_common(_REASONS)]
