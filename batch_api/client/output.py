"""Where answers go on this machine: a file is there whole, or as it was before."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from batch_api.errors import Unusable


class OutputUnusable(Unusable):
    pass


def errors_beside(output: Path) -> Path:
    """Where the lines without an answer go."""
    return output.with_suffix(f".errors{output.suffix}")


def check_targets(output: Path, input: Path | None = None) -> None:
    """Raises OutputUnusable where writing would fail, or cost the input, hours from now."""
    _check_target(output, input)
    # A folder first: it may have no name to derive the other one from.
    _check_target(errors_beside(output), input)


def _check_target(target: Path, input: Path | None) -> None:
    _check_folder(target.resolve().parent)
    if not target.exists():
        return
    if not target.is_file():
        raise OutputUnusable(f"{target} is not a file, so nothing can be written to it.")
    if input is not None and input.exists() and target.samefile(input):
        raise OutputUnusable(f"{target} is the input, which would be overwritten.")


def _check_folder(folder: Path) -> None:
    """By writing to it: neither its mode nor who we are tells."""
    if not folder.is_dir():
        raise OutputUnusable(f"There is no folder {folder}.")
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputUnusable(
            f"Nothing can be written to the folder {folder}: {error.strerror}."
        ) from error


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """To write what shall replace the target, whole and on the disk. Raises OutputUnusable.

    A link stays one: the file is replaced that it leads to.
    """
    file = target.resolve()
    unfinished = file.with_name(f".{file.name}.{secrets.token_hex(8)}.unfinished")
    with _saying_why(target):
        try:
            with unfinished.open("xb") as writer:
                yield writer
                writer.flush()
                os.fsync(writer.fileno())
            unfinished.replace(file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(file)


def remove(target: Path) -> bool:
    """Whether it was there. Raises OutputUnusable."""
    with _saying_why(target):
        was_there = target.exists()
        target.unlink(missing_ok=True)
    return was_there


def _sync_folder(path: Path) -> None:
    """So that the names in the folder of `path` are on the disk."""
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _saying_why(target: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise OutputUnusable(f"{target} can't be written: {error.filename} is missing.") from error
    except OSError as error:
        raise OutputUnusable(f"{target} can't be written: {error.strerror}.") from error
