"""`POST /v1/responses`: one answer, nothing kept. How it is told: response_answer."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from batch_api.engine.sequence import Priority
from batch_api.worker.chat import ChatQuestion
from batch_api.worker.deps import EngineHere, RequestPriority, ResponseBody, WaitingClient
from batch_api.worker.generation import respond
from batch_api.worker.response_answer import ResponseReply
from batch_api.worker.response_errors import told_as_response
from batch_api.worker.responses_as_chat import ResponseAsChat

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

router = APIRouter()


@router.post("/v1/responses")
async def create_response(
    asked: ResponseBody, priority: RequestPriority, served: EngineHere, client: WaitingClient
) -> Response:
    served.check_model(asked.body.model)
    return await respond(ResponseQuestion(asked, priority), served, client)


class ResponseQuestion:
    answers = 1
    answers_param = "input"

    def __init__(self, asked: ResponseAsChat, priority: Priority) -> None:
        self._body = asked.body
        self.priority = priority
        with told_as_response():
            self._chat = ChatQuestion(asked.chat, priority)
        self.stream = asked.body.stream
        self.is_costly = self._chat.is_costly

    def reply(self, engine: "Engine") -> ResponseReply:
        with told_as_response():
            (sequence,), (choice,) = self._chat.begin(engine)
        return ResponseReply(self._body, engine, sequence, choice)
