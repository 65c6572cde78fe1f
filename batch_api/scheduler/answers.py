"""What an upstream's reply means for a request: answered, to be tried again, or not its fault."""

from dataclasses import dataclass, replace
from http import HTTPStatus

import msgspec

from batch_api.errors import APIError
from batch_api.lifecycle import RequestState
from batch_api.schemas.ids import line_id, request_id
from batch_api.schemas.lines import answered_line, unanswered_line
from batch_api.schemas.refusals import REFUSALS
from batch_api.schemas.replies import TokenDetails, Tokens
from batch_api.store.batches import Usage
from batch_api.store.requests import Lease, Settlement
from batch_api.unusable import AnswerTooLarge, UpstreamBroke, UpstreamTimedOut
from batch_api.upstream import GATEWAY_BROKE, OVERLOADED, retry_after_seconds
from batch_api.upstreams import Reply

_EXCERPT = 300
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY}
NO_TOKENS = Usage()

UNTIL_ALONE = 8
"""More suspicions than it takes to be alone at an upstream."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The request is over: what to keep of it."""

    settlement: Settlement
    usage: Usage = NO_TOKENS
    model: str | None = None
    is_refused: bool = False
    """For what it asks, so most likely it would be again."""

    def after(self, seconds: float) -> "Answered":
        """The same, by an attempt that took so long."""
        return replace(self, settlement=replace(self.settlement, seconds=seconds))


@dataclass(frozen=True, slots=True)
class Failed:
    """This attempt failed; if it was the last, `settlement` says so to the client."""

    settlement: Settlement
    reason: str
    """For the log: nothing of what the upstream said."""
    doubts: int = 0
    """So often another request that was there may have been the cause, and nobody is blamed."""


@dataclass(frozen=True, slots=True)
class Away:
    """Nothing is wrong with the request: the upstream that may have its model can't be asked."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The request is no longer ours, and was broken off."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """It waited for a place at an upstream until it was not to be sent any more."""


@dataclass(frozen=True, slots=True)
class Overloaded:
    """Nothing is wrong with the request: the upstream can't take it now."""

    retry_after_seconds: float | None


class Judge:
    """Turns replies for the requests of one batch into what to do next."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id

    def judge(self, lease: Lease, reply: Reply, request_id: str) -> Answered | Failed | Overloaded:
        if reply.status in OVERLOADED:
            return Overloaded(retry_after_seconds(reply.headers))
        if reply.said is None:
            return self._nonsense(lease, reply, request_id)
        completed = reply.status == HTTPStatus.OK
        settlement = self._answered(lease, reply, request_id, reply.body, completed=completed)
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status in _PASSING:
            broke = reply.status in GATEWAY_BROKE and reply.had_company
            return Failed(settlement, f"status {reply.status}", UNTIL_ALONE if broke else 0)
        if not completed:
            return Answered(settlement, is_refused=reply.status in REFUSALS)
        return Answered(settlement, usage_of(reply.said.usage), reply.said.model)

    def unread(self, lease: Lease) -> Answered:
        return Answered(
            self._unanswered(lease, "input_gone", "The batch's input is gone or can't be read.")
        )

    def refused(self, lease: Lease, error: APIError) -> Answered:
        """By us: no upstream is asked."""
        line = answered_line(
            id=line_id(self._batch_id, lease.line),
            custom_id=lease.custom_id,
            status=error.status,
            request_id=request_id(),
            body=msgspec.json.encode(error.body),
        )
        return Answered(
            Settlement(lease, RequestState.FAILED, line), is_refused=error.status in REFUSALS
        )

    def broke(self, lease: Lease, error: UpstreamBroke) -> Failed:
        """The upstream took the request and gave no whole answer."""
        doubts = UNTIL_ALONE if error.had_company else 0
        settlement = self._unanswered(lease, "worker_crashed", str(error))
        return Failed(settlement, f"broke off: {type(error.__cause__).__name__}", doubts)

    def timed_out(self, lease: Lease, error: UpstreamTimedOut) -> Failed:
        """In company it may have been the queue; the second time there are fewer in it."""
        doubts = 1 if error.had_company else 0
        return Failed(self._unanswered(lease, "request_timeout", str(error)), str(error), doubts)

    def too_large(self, lease: Lease, error: AnswerTooLarge) -> Failed:
        return Failed(self._unanswered(lease, "answer_too_large", str(error)), str(error))

    def _nonsense(self, lease: Lease, reply: Reply, request_id: str) -> Failed:
        seen = reply.body[:_EXCERPT].decode(errors="replace")
        reason = f"The upstream answered {reply.status} with what is no answer: {seen}"
        if reply.status == HTTPStatus.OK:
            return Failed(self._unanswered(lease, "invalid_answer", reason), "no answer")
        error = {"message": reason, "type": "server_error", "param": None, "code": None}
        body = msgspec.json.encode({"error": error})
        return Failed(
            self._answered(lease, reply, request_id, body, completed=False),
            f"status {reply.status}",
        )

    def _answered(
        self, lease: Lease, reply: Reply, request_id: str, body: bytes, *, completed: bool
    ) -> Settlement:
        line = answered_line(
            id=line_id(self._batch_id, lease.line),
            custom_id=lease.custom_id,
            status=reply.status,
            request_id=_request_id(reply) or request_id,
            body=body,
        )
        state = RequestState.COMPLETED if completed else RequestState.FAILED
        return Settlement(lease, state, line)

    def _unanswered(self, lease: Lease, code: str, message: str) -> Settlement:
        line = unanswered_line(
            id=line_id(self._batch_id, lease.line),
            custom_id=lease.custom_id,
            code=code,
            message=message,
        )
        return Settlement(lease, RequestState.FAILED, line)


def usage_of(usage: Tokens | None) -> Usage:
    if usage is None:
        return NO_TOKENS
    read = usage.prompt_tokens_details or usage.input_tokens_details or TokenDetails()
    written = usage.completion_tokens_details or usage.output_tokens_details or TokenDetails()
    return Usage(
        input_tokens=usage.prompt_tokens or usage.input_tokens or 0,
        cached_tokens=read.cached_tokens or 0,
        output_tokens=usage.completion_tokens or usage.output_tokens or 0,
        reasoning_tokens=written.reasoning_tokens or 0,
    )


def _request_id(reply: Reply) -> str | None:
    """The upstream's own, if it is plain text."""
    id = reply.headers.get("x-request-id", "")
    return id if id.isascii() else None
