"""A chat with an upstream, as all dialects have it: messages in, text out, ahead of the batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from batch_api.api.deps import AllParts
from batch_api.api.failures import BadGateway, check_is_for_clients, failure_of
from batch_api.api.models import served
from batch_api.errors import APIError, Unavailable
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.error_lines import upstream_error
from batch_api.schemas.priority import PRIORITY_HEADER
from batch_api.unusable import UpstreamUnusable
from batch_api.upstream import OVERLOADED, Answer, retry_after_seconds

CHAT = "/v1/chat/completions"
_RETRY_AFTER_SECONDS = 1
_SHARE = 4


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(msgspec.Struct):
    """As much of one as dialects tell."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None

    @property
    def text(self) -> str:
        return (self.choices[0].message.content if self.choices else None) or ""

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Of the prompt and of the answer, as far as the upstream tells."""
        if self.usage is None:
            return None, None
        return self.usage.prompt_tokens, self.usage.completion_tokens


read_completion = msgspec.json.Decoder(Completion).decode


@dataclass(slots=True)
class Asker:
    """Asks for one call of one client; the model that a question does not name is looked up once.

    The texts that it gets are kept until all are there: no more than one answer may have.
    """

    parts: AllParts
    default_model: str
    _kept_bytes: int = 0

    @property
    def at_once(self) -> int:
        """Of many questions: they go ahead of the batches, and leave places to others."""
        return max(1, self.parts.settings.max_in_flight // _SHARE)

    @classmethod
    async def ready(cls, parts: AllParts, *named: str | None) -> "Asker":
        """`named`: the models that questions name. Raises Unavailable."""
        return cls(parts, "" if all(named) and named else await first_model(parts))

    async def ask(
        self,
        messages: list[dict[str, str]],
        *,
        model: str | None = None,
        options: Mapping[str, Any] = {},
    ) -> Completion:
        """Raises APIError: what the upstream says, or that none can be asked, or no more kept."""
        self._keep(0)
        asked = {"model": model or self.default_model, "messages": messages, **options}
        body = msgspec.json.encode(asked)
        headers = {PRIORITY_HEADER: "interactive", "content-type": "application/json"}
        try:
            async with self.parts.upstreams.open("POST", CHAT, body=body, headers=headers) as reply:
                check_is_for_clients(reply.status)
                body = await reply.read()
                if reply.status != HTTPStatus.OK:
                    raise _refusal(reply, body)
        except UpstreamUnusable as error:
            raise failure_of(error) from error
        completion = _completion(body)
        self._keep(len(completion.text.encode(errors="replace")))
        return completion

    def _keep(self, bytes: int) -> None:
        """Raises BadGateway."""
        if self._kept_bytes + bytes > self.parts.settings.max_answer_bytes:
            raise BadGateway("The answers are too large together.", code="answer_too_large")
        self._kept_bytes += bytes


async def first_model(parts: AllParts) -> str:
    """The first that the upstreams serve. Raises Unavailable."""
    models = await served(parts)
    if not models:
        raise Unavailable("No upstream serves a model.")
    id: str = models[0]["id"]
    return id


def _completion(body: bytes) -> Completion:
    """Raises BadGateway."""
    try:
        return read_completion(body)
    except BAD_JSON as error:
        raise BadGateway("The upstream's answer is none.") from error


def _refusal(reply: Answer, body: bytes) -> APIError:
    """In the upstream's words, with its status."""
    told = upstream_error(reply.status, body)
    headers = {}
    if reply.status in OVERLOADED:
        seconds = retry_after_seconds(reply.headers) or _RETRY_AFTER_SECONDS
        headers["retry-after"] = f"{seconds:g}"
    error = APIError(told.message, code=told.code, headers=headers)
    error.status = reply.status
    error.type = "invalid_request_error" if reply.status < 500 else "server_error"
    return error
