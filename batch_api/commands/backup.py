"""`batch-api backup`: a copy of a data folder that a server can be started on."""

from pathlib import Path

from batch_api.in_words import bytes_in_words
from batch_api.store.backup import back_up
from batch_api.store.inspection import inspect

_SOMETHING_IS_WRONG = 1


def backup(data_dir: Path, destination: Path) -> int:
    """Says what was copied and returns the exit code. Raises Unusable."""
    done = back_up(data_dir, destination)
    size = bytes_in_words(done.bytes)
    print(f"{destination} has the database and {done.files} files of {size}.")
    found = inspect(destination)
    for finding in found.findings:
        print(f"Wrong in it, as in {data_dir}: {finding.subject}: {finding.what}")
    return 0 if found.is_all_right else _SOMETHING_IS_WRONG
