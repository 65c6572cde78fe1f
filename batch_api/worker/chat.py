"""`POST /v1/chat/completions`: what a chat asks of the engine. How it is told: chat_answer."""

from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from batch_api.engine.sequence import Grammar, Priority, SamplingOptions, Sequence
from batch_api.schemas.chat import ChatRequest
from batch_api.worker.chat_answer import ChatReply
from batch_api.worker.choice import Choice
from batch_api.worker.deps import ChatBody, EngineHere, RequestPriority, WaitingClient
from batch_api.worker.generation import respond
from batch_api.worker.prompt import chat_prompt, is_long
from batch_api.worker.sampling import check_logprobs, room_for_answer, sampling_options
from batch_api.worker.structure import Structure, schema_text, structure
from batch_api.worker.tools import Toolbox, toolbox

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(
    chat: ChatBody, priority: RequestPriority, served: EngineHere, client: WaitingClient
) -> Response:
    served.check_model(chat.model)
    return await respond(ChatQuestion(chat, priority), served, client)


class ChatQuestion:
    answers_param = "n"

    def __init__(self, chat: ChatRequest, priority: Priority) -> None:
        self.stream = chat.stream
        self.answers = chat.n
        self._chat = chat
        self.priority = priority
        self._structure = structure(chat)
        self.is_costly = bool(self._structure) or is_long(chat)

    def reply(self, engine: "Engine") -> ChatReply:
        sequences, choices = self.begin(engine)
        return ChatReply(self._chat, engine, sequences, choices)

    def begin(self, engine: "Engine") -> tuple[list[Sequence], list[Choice]]:
        """Raises BadRequest."""
        tools = toolbox(self._chat, engine.tokenizer)
        prompt = chat_prompt(engine.tokenizer, self._chat, tools, max_length=engine.max_length)
        options = self._options(engine, len(prompt), tools)
        sequence = partial(Sequence, prompt, options, priority=self.priority)
        hidden = frozenset(engine.tokenizer.all_special_ids)
        choice = partial(Choice, tools, hidden=hidden)
        sequences = [sequence(choice=number) for number in range(self.answers)]
        check_logprobs(sequences)
        return sequences, [choice() for _ in sequences]

    def _options(
        self, engine: "Engine", prompt_tokens: int, tools: Toolbox | None
    ) -> SamplingOptions:
        chat = self._chat
        max_tokens = room_for_answer(
            chat.token_limit,
            prompt_tokens=prompt_tokens,
            max_length=engine.max_length,
            param="messages",
        )
        logprobs = chat.top_logprobs or 0 if chat.logprobs else None
        return sampling_options(
            chat,
            engine,
            max_tokens=max_tokens,
            logprobs=logprobs,
            grammar=_grammar(tools, self._structure, engine),
            shown_tokens=tools.shown_tokens(engine.tokenizer) if tools else frozenset(),
        )


def _grammar(
    tools: Toolbox | None, structure: Structure | None, engine: "Engine"
) -> Grammar | None:
    """Who must call calls; a form is for who answers in words instead."""
    if tools is not None and tools.must_call:
        return tools.grammar(engine.grammars)
    if structure is None:
        return None
    grammar = structure.grammar(engine.grammars)
    if tools is not None and structure.schema is not None:
        return tools.grammar(engine.grammars, otherwise=schema_text(structure.schema))
    return grammar
