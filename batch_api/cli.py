"""The commands and their options. Imports lazily: only a worker needs torch."""

import asyncio
import os
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from batch_api import __version__, logs
from batch_api.client.commands import add_to
from batch_api.commands import bad_settings
from batch_api.errors import Unusable
from batch_api.settings import MIN_LENGTH, Settings, window_seconds

app = typer.Typer(
    help="A self-hosted server that speaks OpenAI's Files and Batches API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

keys = typer.Typer(
    help="Make, list and revoke the keys of a data folder, whether a server runs on it or not.",
    no_args_is_help=True,
)
app.add_typer(keys, name="keys")

webhooks = typer.Typer(help="What the receivers of webhooks need.", no_args_is_help=True)
app.add_typer(webhooks, name="webhooks")

_WRONGLY_CALLED = 2

_Error = TypeVar("_Error", bound=Exception)
_TENANT = r"[a-z0-9][a-z0-9_-]{0,63}"
_NAME_CHARACTERS = 100
_SECRET_BYTES = 32
_LIFETIME = r"[1-9][0-9]{0,4}[mhdw]"
_SERVICE_LINK = re.compile(r"BATCH_API_(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP)(_.+)?)")

Model = Annotated[
    str | None, typer.Option(help="Hub name or folder of a model. [default: the bundled demo]")
]
_TASKS = "generate (for a causal LM) or embed."
TaskName = Annotated[str | None, typer.Option(help=f"{_TASKS} [default: generate]")]
Upstream = Annotated[
    list[str] | None,
    typer.Option(help="Base URL that speaks OpenAI, instead of own workers; may be repeated."),
]
MaxLength = Annotated[
    int | None, typer.Option(min=MIN_LENGTH, help="Tokens of a prompt and its answer together.")
]
MaxSequences = Annotated[int | None, typer.Option(min=1, help="Sequences that run at once.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
_LEVELS = "debug, info, warning or error."
LogLevel = Annotated[str | None, typer.Option(help=_LEVELS)]
DataDir = Annotated[
    Path | None, typer.Option(help="Where jobs and files live. [default: batch-api-data]")
]


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"batch-api {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell it and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    model: Model = None,
    task: TaskName = None,
    host: Annotated[str | None, typer.Option(help="[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="[default: 5000]")] = None,
    data_dir: DataDir = None,
    upstream: Upstream = None,
    max_length: MaxLength = None,
    max_sequences: MaxSequences = None,
    dtype: Dtype = None,
    allow_anyone: Annotated[
        bool, typer.Option("--allow-anyone", help="Listen on any host although there is no key.")
    ] = False,
    log_level: LogLevel = None,
) -> None:
    """Serve the API, run the batches, and start a worker for every GPU."""
    from batch_api.commands.serve import serve

    settings = _settings(
        model=model,
        task=task,
        host=host,
        port=port,
        data_dir=data_dir,
        upstream=upstream,
        max_length=max_length,
        max_sequences=max_sequences,
        dtype=dtype,
        allow_anyone=allow_anyone or None,
        log_level=log_level,
    )
    _run(serve(settings), settings)


@app.command()
def run(
    input: Annotated[Path, typer.Argument(help="JSONL, one request a line; gzip'd too.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="For the answers, as JSONL.")],
    model: Model = None,
    task: TaskName = None,
    upstream: Upstream = None,
    max_length: MaxLength = None,
    max_sequences: MaxSequences = None,
    dtype: Dtype = None,
    log_level: LogLevel = None,
) -> None:
    """Run one file of requests, with a progress bar; called again, it goes on where it stopped."""
    from batch_api.commands.run import Job, run_job

    settings = _settings(
        model=model,
        task=task,
        upstream=upstream,
        max_length=max_length,
        max_sequences=max_sequences,
        dtype=dtype,
        # The bar tells enough, unless somebody wants more.
        log_level=log_level or os.environ.get("BATCH_API_LOG_LEVEL", "error"),
    )
    raise typer.Exit(_run(run_job(Job(input, output), settings), settings))


@app.command()
def worker(
    model: Model = None,
    task: TaskName = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="What requests call it. [default: the model's name]")
    ] = None,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8001,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name beside this machine's that requests call it; may be repeated."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …")] = None,
    dtype: Dtype = None,
    max_sequences: MaxSequences = None,
    max_length: MaxLength = None,
    max_waiting: Annotated[int, typer.Option(min=0, help="Beyond it: 503.")] = 512,
    log_level: LogLevel = None,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when standard input does.")
    ] = False,
) -> None:
    """Serve one model on one device."""
    from batch_api.commands.worker import serve_worker

    settings = _settings(
        model=model,
        task=task,
        max_length=max_length,
        max_sequences=max_sequences,
        dtype=dtype,
        log_level=log_level,
    )
    code = serve_worker(
        model=settings.model,
        task=settings.task,
        served_model_name=served_model_name,
        host=host,
        port=port,
        allowed_hosts=allowed_host or (),
        device=device,
        dtype=settings.dtype,
        max_sequences=settings.max_sequences,
        max_length=settings.max_length,
        max_waiting=max_waiting,
        log_level=settings.log_level,
        exit_with_parent=exit_with_parent,
    )
    raise typer.Exit(code)


@app.command()
def doctor(
    data_dir: DataDir = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; the server must not run.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Tell it to programs.")] = False,
) -> None:
    """Say whether the data folder is all right. Exit code 1 if not, 2 if that can't be said."""
    from batch_api.commands.doctor import doctor

    folder = _settings(data_dir=data_dir).data_dir
    with _refusing():
        raise typer.Exit(doctor(folder, deep=deep, mends=repair, as_json=json))


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Annotated[str, typer.Option(help="Whose files and batches it opens.")] = "default",
    expires_in: Annotated[
        str | None, typer.Option(help="Such as 90m, 12h, 30d or 8w. [default: it does not expire]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, and show it this once."""
    if not re.fullmatch(_TENANT, tenant):
        raise _refusal(f"The tenant {tenant!r} is no name of up to 64 of a-z, 0-9, _ and -.")
    if not (name.isprintable() and 0 < len(name) <= _NAME_CHARACTERS):
        raise _refusal(f"The name must have 1 to {_NAME_CHARACTERS} printable characters.")
    if expires_in is not None and not re.fullmatch(_LIFETIME, expires_in):
        raise _refusal(f"The time {expires_in!r} is not such as 90m, 12h, 30d or 8w.")
    from batch_api.commands.keys import create_key

    settings = _settings(data_dir=data_dir)
    lifetime = None if expires_in is None else window_seconds(expires_in)
    creating = create_key(settings.data_dir, name=name, tenant=tenant, lifetime_seconds=lifetime)
    _run(creating, settings)


@keys.command("list")
def list_keys(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """List the keys, without their secrets."""
    from batch_api.commands.keys import list_keys

    settings = _settings(data_dir=data_dir)
    _run(list_keys(settings.data_dir, as_json=as_json), settings)


@keys.command("revoke")
def revoke_key(
    id: Annotated[str, typer.Argument(help="As `keys list` tells it.")], data_dir: DataDir = None
) -> None:
    """Let nobody in with that key any more."""
    from batch_api.commands.keys import revoke_key

    settings = _settings(data_dir=data_dir)
    _run(revoke_key(settings.data_dir, id), settings)


@webhooks.command("secret")
def make_webhook_secret() -> None:
    """Print a fresh one: for BATCH_API_WEBHOOK_SECRET, and for those who check signatures."""
    typer.echo(f"whsec_{b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}")


@app.command()
def backup(
    destination: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the data folder, while a server works on it or not."""
    from batch_api.commands.backup import backup

    folder = _settings(data_dir=data_dir).data_dir
    with _refusing():
        raise typer.Exit(backup(folder, destination))


@app.command()
def compose(
    gpus: Annotated[int, typer.Option(min=1, max=64, help="One worker each.")],
    model: Annotated[
        str | None, typer.Option(help="Hub name, unless .env says BATCH_API_MODEL.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="[default: docker-compose….yml]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a Docker Compose file, and nginx's list of workers, for so many GPUs."""
    from batch_api.commands.compose import write_compose
    from batch_api.compose.documents import DEFAULT_MODEL

    name = "docker-compose.yml" if gpus == 1 else "docker-compose-multigpu.yml"
    with _refusing():
        written = write_compose(
            gpus=gpus,
            model=model or DEFAULT_MODEL,
            output=output or Path(name),
            overwrites=force,
        )
    for path in written:
        typer.echo(f"{path} is written.")


add_to(app)


def _settings(**given: Any) -> Settings:
    """From the environment and the options that were given."""
    _forget_service_links()
    known = {f"BATCH_API_{name.upper()}" for name in Settings.model_fields}
    if unknown := sorted(k for k in os.environ if k.startswith("BATCH_API_") and k not in known):
        raise _refusal(f"There is no setting {unknown[0]}.")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except (ValidationError, SettingsError) as error:
        raise _refusal(bad_settings.sentence(error, given)) from None


def _forget_service_links() -> None:
    """Kubernetes tells each pod of a service called batch-api in variables that look like ours."""
    for name, value in list(os.environ.items()):
        if _SERVICE_LINK.fullmatch(name) or (name == "BATCH_API_PORT" and "://" in value):
            del os.environ[name]


def _run(command: Coroutine[Any, Any, int | None], settings: Settings) -> int:
    """The command's exit code."""
    from batch_api.store.trouble import DiskFailed, end_at_once

    logs.configure(settings.log_level)
    sentences: list[str] = []
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(command) or 0
    except* DiskFailed as failed:
        end_at_once(*_leaves(failed))
    except* Unusable as unusable:
        sentences += [str(error) for error in _leaves(unusable)]
    raise _refusal(" ".join(sentences))


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Unusable as error:
        raise _refusal(str(error)) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


def _leaves(group: BaseExceptionGroup[_Error]) -> Iterator[_Error]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _refusal(sentence: str) -> typer.Exit:
    """Said in one sentence; to be raised."""
    typer.echo(f"batch-api: {sentence}", err=True)
    return typer.Exit(_WRONGLY_CALLED)
