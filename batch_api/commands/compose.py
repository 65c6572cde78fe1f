"""`batch-api compose`: writes a Docker Compose file, and nginx's list of workers, for some GPUs."""

import re
from pathlib import Path

from batch_api.compose.documents import compose_file, worker_list
from batch_api.errors import Unusable

_MODEL = re.compile(r"/?[\w.-]+(/[\w.-]+)*")


class NotWritten(Unusable):
    """What is there stays as it is."""


def write_compose(*, gpus: int, model: str, output: Path, overwrites: bool) -> list[Path]:
    """Into a checkout, where Dockerfile and nginx's configuration are. Raises NotWritten."""
    if not _MODEL.fullmatch(model):
        raise NotWritten(f"{model} is neither a hub name nor a folder in the volume of models.")
    folder = output.absolute().parent
    if not (folder / "Dockerfile").is_file() or not (folder / "nginx").is_dir():
        raise NotWritten(f"{folder} is no checkout of batch-api: its images are built from one.")
    contents = {output: compose_file(gpus=gpus, model=model, file=output.name)}
    if gpus > 1:
        contents[output.parent / "nginx" / "workers.list"] = worker_list(gpus=gpus)
    _write(contents, overwrites=overwrites)
    return list(contents)


def _write(contents: dict[Path, str], *, overwrites: bool) -> None:
    """All or none."""
    other = [path for path, text in contents.items() if path.exists() and path.read_text() != text]
    if other and not overwrites:
        names = " and ".join(map(str, other))
        raise NotWritten(f"{names} would change; --force overwrites {_it_or_them(other)}.")
    try:
        for path, text in contents.items():
            path.write_text(text)
    except OSError as error:
        raise NotWritten(f"{error.filename} can't be written: {error.strerror}.") from error


def _it_or_them(things: list[Path]) -> str:
    return "it" if len(things) == 1 else "them"
