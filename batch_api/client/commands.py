"""The client's commands and their options. The SDK is imported when one of them runs."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch_api.errors import Unusable

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Remote

WRONGLY_CALLED = 2
_INTERRUPTED = 130

_SERVER = "http://127.0.0.1:5000/v1"


def _given(id: str | None) -> str | None:
    if id == "":  # None while a shell completes
        raise _refusal("The id of the batch is empty.")
    return id


Id = Annotated[str, typer.Argument(help="Of the batch.", callback=_given)]
Server = Annotated[
    str, typer.Option("--server", envvar="OPENAI_BASE_URL", help="Base URL of the server.")
]
ApiKey = Annotated[
    str,
    typer.Option("--api-key", envvar="OPENAI_API_KEY", help="If it wants one.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait", help="Until the batch is over; -o waits too.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="For the answers; failed lines go beside, as to out.errors.jsonl."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]


def add_to(app: typer.Typer) -> None:
    for command in (submit, batches, watch, results, lines, cancel, retry, status):
        app.command(rich_help_panel="Commands for a server")(command)


def submit(
    file: Annotated[Path, typer.Argument(help="JSONL, one request a line; gzip'd too.")],
    endpoint: Annotated[str | None, typer.Option(help="[default: as the first line says]")] = None,
    window: Annotated[str, typer.Option(help="How long it may take.")] = "24h",
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    wait: Wait = False,
    output: Out = None,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """Upload a file of requests and begin a batch; prints its id."""

    def work(remote: "Remote") -> int:
        from batch_api.client.submitting import read_metadata, submit

        labels = read_metadata(metadata or [])
        _check(output, input=file)
        batch = submit(remote, file, endpoint=endpoint, window=window, metadata=labels)
        return _begun(remote, batch, wait=wait, output=output, json=json)

    _run(work, server, api_key)


def batches(
    limit: Annotated[int, typer.Option(min=1, help="The newest.")] = 20,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """List batches, the newest first."""

    def work(remote: "Remote") -> int:
        from batch_api.client.telling import tell_batches

        tell_batches(remote.batches(limit), as_json=json)
        return 0

    _run(work, server, api_key)


def watch(
    id: Id,
    output: Out = None,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """Follow a batch to its end. Exit code 0 if every line was answered, 1 if not."""

    def work(remote: "Remote") -> int:
        _check(output)
        return _follow(remote, id, output=output, json=json)

    _run(work, server, api_key)


def results(
    id: Id,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="[default: standard output]")
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="The failed lines, not the answers.")
    ] = False,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """Fetch the answers, as JSONL; of a batch that still runs, those that are there."""

    def work(remote: "Remote") -> int:
        from batch_api.client.fetching import fetch
        from batch_api.client.telling import exit_code, tell_fetched

        _check(output)
        batch = remote.batch(id)
        count = fetch(remote, batch, output, errors=errors)
        tell_fetched(batch, count, output, as_json=json)
        return exit_code(batch)

    _run(work, server, api_key)


def lines(
    id: Id,
    failed: Annotated[
        bool, typer.Option("--failed", help="Those that failed, expired or were cancelled.")
    ] = False,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """Tell what has become of each line, and why one failed."""

    def work(remote: "Remote") -> int:
        from batch_api.client.telling import tell_lines

        states = ["failed", "expired", "cancelled"] if failed else []
        tell_lines(remote.lines(id, states), as_json=json)
        return 0

    _run(work, server, api_key)


def cancel(
    id: Id,
    wait: Wait = False,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """Cancel a batch; what it has answered is kept."""

    def work(remote: "Remote") -> int:
        from batch_api.client.telling import tell_batch

        batch = remote.cancel(id)
        if wait:
            return _follow(remote, id, output=None, json=json)
        tell_batch(batch, as_json=json)
        return 0

    _run(work, server, api_key)


def retry(
    id: Id,
    wait: Wait = False,
    output: Out = None,
    server: Server = _SERVER,
    api_key: ApiKey = "none",
    json: Json = False,
) -> None:
    """Run what has no answer once more, in a new batch that keeps the others; prints its id."""

    def work(remote: "Remote") -> int:
        _check(output)
        return _begun(remote, remote.retry(id), wait=wait, output=output, json=json)

    _run(work, server, api_key)


def status(server: Server = _SERVER, api_key: ApiKey = "none", json: Json = False) -> None:
    """Tell how a server stands: its checks, its models, and the batches it works on."""

    def work(remote: "Remote") -> int:
        from batch_api.client.standing import tell_standing

        return tell_standing(remote, as_json=json)

    _run(work, server, api_key)


def _begun(remote: "Remote", batch: "Batch", *, wait: bool, output: Path | None, json: bool) -> int:
    from batch_api.client.telling import tell_id

    if wait or output is not None:
        if not json:
            tell_id(batch)
        return _follow(remote, batch.id, output=output, json=json)
    tell_id(batch, as_json=json)
    return 0


def _follow(remote: "Remote", id: str, *, output: Path | None, json: bool) -> int:
    """To the end, and fetch its files. The exit code."""
    from batch_api.client.fetching import fetch_both
    from batch_api.client.following import follow
    from batch_api.client.telling import exit_code, tell_end

    try:
        batch = follow(remote, id)
    except KeyboardInterrupt:
        typer.echo(f"\n{id} goes on without you; `batch-api watch {id}` comes back.", err=True)
        return _INTERRUPTED
    if output is not None and batch.status != "failed":
        fetch_both(remote, batch, output)
    tell_end(remote, batch, as_json=json)
    return exit_code(batch)


def _check(output: Path | None, *, input: Path | None = None) -> None:
    from batch_api.client.output import check_targets

    if output is not None:
        check_targets(output, input)


def _run(work: Callable[["Remote"], int], server: str, api_key: str) -> None:
    try:
        with _remote().at(server, api_key) as remote:
            code = work(remote)
        sys.stdout.flush()
    except Unusable as error:
        raise _refusal(str(error)) from None
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        _leave_stdout()
        code = 0
    except OSError as error:
        _leave_stdout()
        raise _refusal(f"Can't write to standard output: {error.strerror}.") from None
    raise typer.Exit(code)


def _remote() -> type["Remote"]:
    try:
        from batch_api.client.remote import Remote
    except ImportError as error:
        sentence = "This command needs OpenAI's SDK: pip install 'batch-api[client]'."
        raise Unusable(sentence) from error
    return Remote


def _leave_stdout() -> None:
    """What is left to be written is not tried again at the end."""
    with suppress(OSError):
        sys.stdout.close()


def _refusal(sentence: str) -> typer.Exit:
    """Said in one sentence; to be raised."""
    typer.echo(f"batch-api: {sentence}", err=True)
    return typer.Exit(WRONGLY_CALLED)
