"""A server, through OpenAI's SDK: its own methods for OpenAI's routes, paths for ours."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, cast
from urllib.parse import quote

import openai
from openai.types import Batch
from pydantic import Field

from batch_api.client.input import check_whole, opened, unpacked_name
from batch_api.client.sentences import Away, in_sentences
from batch_api.errors import Unusable

_PAGE_LINES = 1000
_PAGE_BATCHES = 100
_CHUNK_BYTES = 256 * 1024
_SOON: openai.RequestOptions = {"max_retries": 0, "timeout": 5.0}
# What `with_streaming_response` sends, which there is for OpenAI's own routes alone.
_STREAMED = {"X-Stainless-Raw-Response": "stream"}


class Report(openai.BaseModel):
    """What `/ready` tells."""

    status: str
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def waits_for(self) -> str | None:
        """What keeps the server from its work; None if nothing does, or it doesn't say."""
        reasons = [str(check["reason"]) for check in self.checks.values() if "reason" in check]
        return "; ".join(reasons) or None


class Line(openai.BaseModel):
    """What has become of a line of a batch."""

    line: int
    custom_id: str
    state: str
    attempts: int
    error: dict[str, Any] | None


class _Lines(openai.BaseModel):
    data: list[Line]
    has_more: bool


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
        if not api_key.isascii():
            raise Unusable("The API key has characters other than ASCII's, and no key has.")
        with (
            in_sentences(url),
            openai.OpenAI(
                base_url=url, api_key=api_key, _strict_response_validation=True
            ) as client,
        ):
            yield cls(client)

    @property
    def url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    def upload(self, path: Path) -> str:
        """The new file's id."""
        with opened(path) as content:
            check_whole(content)
            with self._sentences():
                return self._client.files.create(
                    file=(unpacked_name(path), cast(BinaryIO, content)),
                    purpose="batch",
                    extra_headers=_once(),
                ).id

    def delete_file(self, id: str) -> None:
        with self._sentences():
            self._client.files.delete(id)

    def begin(
        self, *, file_id: str, endpoint: str, window: str, metadata: dict[str, str], key: str
    ) -> Batch:
        """The batch that this key has begun before, or else a new one."""
        with self._sentences():
            return self._client.batches.create(
                input_file_id=file_id,
                endpoint=cast(Any, endpoint),
                completion_window=cast(Any, window),
                metadata=metadata or None,
                extra_headers=_once(key),
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

    def lines(self, id: str, states: Sequence[str]) -> Iterator[Line]:
        """Of these states, or of all if none is named."""
        after, has_more = 0, True
        while has_more:
            query = {"after": after, "limit": _PAGE_LINES, "state": list(states)}
            with self._sentences():
                page = self._client.get(
                    f"/batches/{_segment(id)}/lines",
                    cast_to=_Lines,
                    options={"params": cast(Any, query)},
                )
            yield from page.data
            has_more = page.has_more and bool(page.data)
            after = page.data[-1].line if page.data else after

    def content(self, file_id: str) -> Iterator[bytes]:
        yield from self._chunks(f"/files/{_segment(file_id)}/content")

    def finished_lines(self, id: str) -> Iterator[bytes]:
        """Of a batch that still runs: each answered or failed line, with its line feed."""
        held: list[bytes] = []
        for chunk in self._chunks(f"/batches/{_segment(id)}/results"):
            *ends, begin = chunk.split(b"\n")
            for end in ends:
                yield b"".join((*held, end, b"\n"))
                held = []
            held.append(begin)
        if any(held):
            raise Away(f"{self.url} broke off within a line.")

    def models(self) -> list[str]:
        with self._sentences():
            return [model.id for model in self._client.models.list()]

    def readiness(self) -> Report:
        """Also of a server that says that it isn't ready."""
        url = f"{self.url.removesuffix('/v1')}/ready"
        with self._sentences():
            try:
                return self._client.get(url, cast_to=Report, options=_SOON)
            except openai.InternalServerError as error:
                with suppress(ValueError):
                    return Report.model_validate_json(error.response.content)
                raise

    def _chunks(self, path: str) -> Iterator[bytes]:
        with self._sentences():
            answer = self._client.get(
                path, cast_to=cast(type[_Streamed], object), options={"headers": _STREAMED}
            )
            with closing(answer):
                yield from answer.iter_bytes(_CHUNK_BYTES)

    def _sentences(self) -> AbstractContextManager[None]:
        return in_sentences(self.url)


def _once(key: str | None = None) -> dict[str, str]:
    """The SDK repeats a call whose answer is lost: it must not do twice what it does."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}


def _segment(id: str) -> str:
    return quote(id, safe="")
