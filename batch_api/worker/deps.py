"""What routes need from the HTTP request, which no other file here looks into."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from fastapi import Depends, Header, Request
from prometheus_client import CollectorRegistry

from batch_api.disconnect import while_connected
from batch_api.engine.sequence import Priority
from batch_api.envelope import parse, read_whole
from batch_api.errors import BadRequest, NotFound
from batch_api.schemas.body import Naming
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.completions import CompletionRequest
from batch_api.schemas.embeddings import EmbeddingsRequest
from batch_api.schemas.priority import PRIORITY_HEADER
from batch_api.schemas.queries import Queries
from batch_api.schemas.responses import ResponseRequest
from batch_api.settings import Task
from batch_api.worker.engine_thread import AnyEngine, EngineThread
from batch_api.worker.responses_as_chat import ResponseAsChat, as_chat
from batch_api.worker.unsupported import refuse_unsupported

if TYPE_CHECKING:
    from batch_api.engine.embedder import Embedder
    from batch_api.engine.engine import Engine

MAX_BODY_BYTES = 16 * 1024 * 1024
_LONG_BYTES = 64 * 1024  # a body over it could hold up the event loop while it is parsed

_Result = TypeVar("_Result")
_Body = TypeVar("_Body")
_Engine = TypeVar("_Engine", bound=AnyEngine)


@dataclass(frozen=True, slots=True)
class Served(Generic[_Engine]):
    """What this process serves."""

    model: str
    task: Task
    created: int
    engine: EngineThread[_Engine]
    registry: CollectorRegistry
    """What `/metrics` tells."""
    about: dict[str, Any]

    def check_model(self, name: str) -> None:
        """Raises NotFound if it is another one."""
        if name != self.model:
            message = (
                f"The model '{name[:100]}' does not exist here; this worker has: {self.model}."
            )
            raise NotFound(message, code="model_not_found")


@dataclass(frozen=True, slots=True)
class Client:
    request: Request

    async def wait_for(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Raises ClientDisconnect if the client goes away first."""
        return await while_connected(self.request.receive, work)


def _served(request: Request) -> Served[Any]:
    served = request.app.state.served
    assert isinstance(served, Served)
    return served


def _body(read: Callable[[bytes], _Body]) -> Callable[[Request], Coroutine[Any, Any, _Body]]:
    """A dependency that reads this from the request's body."""

    async def read_body(request: Request) -> _Body:
        raw = await read_whole(request.stream(), MAX_BODY_BYTES)
        return await asyncio.to_thread(read, raw) if len(raw) > _LONG_BYTES else read(raw)

    return read_body


def _read_chat(raw: bytes) -> ChatRequest:
    chat = parse(ChatRequest, raw)
    refuse_unsupported(chat)
    return chat


def _read_completion(raw: bytes) -> CompletionRequest:
    completion = parse(CompletionRequest, raw)
    refuse_unsupported(completion)
    return completion


def _read_embeddings(raw: bytes) -> EmbeddingsRequest:
    return parse(EmbeddingsRequest, raw)


def _read_naming(raw: bytes) -> Naming:
    return parse(Naming, raw)


def _read_queries(raw: bytes) -> Queries:
    return parse(Queries, raw)


def _read_response(raw: bytes) -> ResponseAsChat:
    return as_chat(parse(ResponseRequest, raw))


def _priority(name: Annotated[str, Header(alias=PRIORITY_HEADER)] = "interactive") -> Priority:
    names = {priority.name.lower(): priority for priority in Priority}
    if name not in names:
        raise BadRequest(f"The header {PRIORITY_HEADER} must be one of: {', '.join(names)}.")
    return names[name]


ServedHere = Annotated[Served[Any], Depends(_served)]
EngineHere = Annotated[Served["Engine"], Depends(_served)]
EmbedderHere = Annotated[Served["Embedder"], Depends(_served)]
ChatBody = Annotated[ChatRequest, Depends(_body(_read_chat))]
ResponseBody = Annotated[ResponseAsChat, Depends(_body(_read_response))]
CompletionBody = Annotated[CompletionRequest, Depends(_body(_read_completion))]
EmbeddingsBody = Annotated[EmbeddingsRequest, Depends(_body(_read_embeddings))]
QueriesBody = Annotated[Queries, Depends(_body(_read_queries))]
NamingBody = Annotated[Naming, Depends(_body(_read_naming))]
RequestPriority = Annotated[Priority, Depends(_priority)]
WaitingClient = Annotated[Client, Depends(Client)]
