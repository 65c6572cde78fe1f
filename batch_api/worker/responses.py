"""`POST /v1/responses`: one answer, nothing kept. How it is told: response_answer."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from batch_api.engine.sequence import Priority
from batch_api.schemas.responses import ResponseRequest
from batch_api.worker.chat import ChatQuestion
from batch_api.worker.deps import RequestPriority, ResponseBody, ServedHere, WaitingClient
from batch_api.worker.generation import respond
from batch_api.worker.response_answer import ResponseReply
from batch_api.worker.responses_as_chat import as_chat

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

router = APIRouter()


@router.post("/v1/responses")
async def create_response(
    body: ResponseBody, priority: RequestPriority, served: ServedHere, client: WaitingClient
) -> Response:
    served.check_model(body.model)
    return await respond(ResponseQuestion(body, priority), served, client)


class ResponseQuestion:
    answers = 1
    answers_param = "input"

    def __init__(self, body: ResponseRequest, priority: Priority) -> None:
        self._body = body
        self._chat = ChatQuestion(as_chat(body), priority)
        self.stream = body.stream
        self.is_costly = self._chat.is_costly

    def reply(self, engine: "Engine") -> ResponseReply:
        (sequence,), (choice,) = self._chat.begin(engine)
        return ResponseReply(self._body, engine, sequence, choice)
