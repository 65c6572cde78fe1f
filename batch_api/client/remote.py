"""A server, through OpenAI's SDK: its own methods for OpenAI's routes, paths for ours."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self, cast
from urllib.parse import quote

from batch_api.errors import Unusable

try:
    import openai
    from openai.types import Batch
except ImportError as error:
    raise Unusable("This command needs OpenAI's SDK: pip install 'batch-api[client]'.") from error

_PAGE_LINES = 1000
_PAGE_BATCHES = 100
_CHUNK_BYTES = 256 * 1024
# What `with_streaming_response` sends, which there is for OpenAI's own routes alone.
_STREAMED = {"X-Stainless-Raw-Response": "stream"}


class Away(Unusable):
    """The server can't be reached, or has an error: it may be back in a while."""


class Missing(Unusable):
    """The server has no such thing, or no such route."""


class _Streamed(Protocol):
    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Remote:
    """All methods raise Unusable, with a sentence that says what is wrong."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def at(cls, server: str, api_key: str) -> Iterator[Self]:
        """`server`: with or without the `/v1` that all its paths begin with."""
        url = server.rstrip("/").removesuffix("/v1") + "/v1"
        with _in_sentences(url), openai.OpenAI(base_url=url, api_key=api_key) as client:
            yield cls(client)

    @property
    def url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    def upload(self, path: Path) -> str:
        """The new file's id."""
        with self._sentences(), path.open("rb") as content:
            headers = _once()
            file = self._client.files.create(file=content, purpose="batch", extra_headers=headers)
        return file.id

    def delete_file(self, id: str) -> None:
        with self._sentences():
            self._client.files.delete(id)

    def begin(self, *, file_id: str, endpoint: str, window: str, metadata: dict[str, str]) -> Batch:
        with self._sentences():
            return self._client.batches.create(
                input_file_id=file_id,
                endpoint=cast(Any, endpoint),
                completion_window=cast(Any, window),
                metadata=metadata or None,
                extra_headers=_once(),
            )

    def batch(self, id: str) -> Batch:
        with self._sentences():
            return self._client.batches.retrieve(id)

    def batches(self, limit: int) -> Iterator[Batch]:
        """The newest first."""
        with self._sentences():
            pages = self._client.batches.list(limit=min(limit, _PAGE_BATCHES))
            yield from islice(pages, limit)

    def cancel(self, id: str) -> Batch:
        with self._sentences():
            return self._client.batches.cancel(id)

    def retry(self, id: str) -> Batch:
        with self._sentences():
            return self._client.post(
                f"/batches/{_segment(id)}/retry", cast_to=Batch, options={"headers": _once()}
            )

    def lines(self, id: str, states: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Of these states, or of all if none is named."""
        after, has_more = 0, True
        while has_more:
            query = {"after": after, "limit": _PAGE_LINES, "state": list(states)}
            page = self.get(f"/batches/{_segment(id)}/lines", query)
            yield from page["data"]
            after = page["data"][-1]["line"] if page["data"] else after
            has_more = page["has_more"]

    def content(self, file_id: str) -> Iterator[bytes]:
        yield from self._chunks(f"/files/{_segment(file_id)}/content")

    def finished_lines(self, id: str) -> Iterator[bytes]:
        """Of a batch that still runs: each answered or failed line, with its line feed."""
        held = b""
        for chunk in self._chunks(f"/batches/{_segment(id)}/results"):
            *lines, held = (held + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)

    def models(self) -> list[str]:
        with self._sentences():
            return [model.id for model in self._client.models.list()]

    def readiness(self) -> dict[str, Any]:
        """What `/ready` tells, also where that is that the server isn't."""
        url = f"{self.url.removesuffix('/v1')}/ready"
        with self._sentences():
            try:
                return self._client.with_options(max_retries=0).get(url, cast_to=dict[str, Any])
            except openai.InternalServerError as error:
                told = error.response.json()
                assert isinstance(told, dict), "a report has names"
                return told

    def get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {"params": query or {}}
        with self._sentences():
            return self._client.get(path, cast_to=dict[str, Any], options=cast(Any, options))

    def _chunks(self, path: str) -> Iterator[bytes]:
        with self._sentences():
            answer = self._client.get(
                path, cast_to=cast(type[_Streamed], object), options={"headers": _STREAMED}
            )
            with closing(answer):
                yield from answer.iter_bytes(_CHUNK_BYTES)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        with _in_sentences(self.url):
            yield


@contextmanager
def _in_sentences(url: str) -> Iterator[None]:
    try:
        yield
    except openai.APIConnectionError as error:
        raise Away(f"Can't reach {url}: {error.__cause__ or error}.") from error
    except openai.InternalServerError as error:
        raise Away(f"{url} answers {error.status_code}: {_message(error)}") from error
    except openai.NotFoundError as error:
        raise Missing(_message(error)) from error
    except openai.APIStatusError as error:
        raise Unusable(f"{url} answers {error.status_code}: {_message(error)}") from error
    except openai.OpenAIError as error:
        raise Unusable(str(error)) from error


def _message(error: openai.APIStatusError) -> str:
    told = error.body.get("message") if isinstance(error.body, dict) else None
    return str(told or error.message)


def _once() -> dict[str, str]:
    """The SDK repeats a call whose answer is lost: it must not do twice what it does."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def _segment(id: str) -> str:
    return quote(id, safe="")
