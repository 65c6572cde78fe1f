"""What commands say: ids, tables and JSON on standard output, all else on standard error."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from batch_api.client.advice import advice
from batch_api.client.following import sight_of
from batch_api.client.terminal import say, shown
from batch_api.in_words import counted, status_in_words
from batch_api.lifecycle import BatchStatus

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Line, Remote

ALL_ANSWERED, NOT_ALL_ANSWERED, NOT_VALID = 0, 1, 2


def exit_code(batch: "Batch") -> int:
    if batch.status == "failed":
        return NOT_VALID
    sight = sight_of(batch)
    is_whole = batch.status == "completed" and sight.completed == sight.total
    return ALL_ANSWERED if is_whole else NOT_ALL_ANSWERED


def tell_id(batch: "Batch", *, as_json: bool = False) -> None:
    if as_json:
        print_json(batch.to_dict(mode="json"))
    else:
        print(batch.id, flush=True)


def tell_batch(batch: "Batch", *, as_json: bool) -> None:
    if as_json:
        print_json(batch.to_dict(mode="json"))
    else:
        print_table([_row(batch)])


def tell_batches(batches: Iterable["Batch"], *, as_json: bool) -> None:
    if as_json:
        for batch in batches:
            print_json(batch.to_dict(mode="json"))
    else:
        print_table([_row(batch) for batch in batches])


def tell_end(remote: "Remote", batch: "Batch", *, as_json: bool) -> None:
    if as_json:
        print_json(batch.to_dict(mode="json"))
    if batch.status == "failed":
        say(f"{batch.id} failed: its input is not valid, and nothing was run:")
        for problem in (batch.errors.data if batch.errors else None) or []:
            where = f"line {problem.line}: " if problem.line else ""
            say(f"  {where}{problem.message} ({problem.code})")
        return
    say(_summary(batch))
    if exit_code(batch) != ALL_ANSWERED:
        say(advice(remote, batch))


def tell_fetched(batch: "Batch", lines: int, output: Path | None, *, as_json: bool) -> None:
    if as_json and output is not None:
        print_json({"id": batch.id, "status": batch.status, "lines": lines, "path": str(output)})
    elif not BatchStatus(batch.status).is_final:
        say(
            f"{batch.id} is still {status_in_words(batch.status)}: {counted(lines, 'line')} so far."
        )
    elif exit_code(batch) != ALL_ANSWERED:
        say(_summary(batch))


def tell_lines(lines: Iterable["Line"], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            print_json(line.to_dict(mode="json"))
        else:
            error = line.error or {}
            told = " ".join(
                str(it) for it in (error.get("status_code"), error.get("message")) if it
            )
            print(
                f"{line.line:>7}  {shown(line.custom_id)}  {shown(line.state)}  "
                f"{counted(line.attempts, 'attempt')}  {shown(told)}".rstrip()
            )


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _row(batch: "Batch") -> list[str]:
    sight = sight_of(batch)
    created = datetime.fromtimestamp(batch.created_at).astimezone().isoformat(" ", "minutes")
    return [
        batch.id,
        batch.status,
        f"{sight.ended}/{sight.total or '?'}",
        f"{sight.failed} failed",
        created,
        shown(" ".join(f"{key}={value}" for key, value in (batch.metadata or {}).items())),
    ]


def _summary(batch: "Batch") -> str:
    sight, usage = sight_of(batch), batch.usage
    unrun = (sight.total or 0) - sight.ended
    parts = [
        f"{batch.id} {status_in_words(batch.status)}: {sight.completed} of {sight.total} answered"
    ]
    parts += [f"{sight.failed} failed"] * bool(sight.failed)
    parts += [f"{unrun} not run"] * bool(unrun)
    tokens = f" {usage.input_tokens} tokens read, {usage.output_tokens} written." if usage else ""
    return f"{', '.join(parts)}.{tokens}"
