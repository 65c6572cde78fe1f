"""How far `run` is, and what it says at the end."""

from collections import Counter
from pathlib import Path

from batch_api.client.progress import Sight
from batch_api.in_words import counted
from batch_api.schemas.error_lines import read_error_line
from batch_api.store.tables import BatchRow

_REASONS = 5


def sight_of(batch: BatchRow) -> Sight:
    return Sight(
        status=batch.status,
        total=batch.total,
        completed=batch.completed,
        failed=batch.failed,
        output_tokens=batch.output_tokens,
    )


def summary(batch: BatchRow, output: Path, errors: Path) -> str:
    lines = f"{batch.completed} of {counted(batch.total or 0, 'line')} answered, in {output}."
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
