"""`POST /v1/completions`: prompts as they are, without a chat template."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from batch_api.engine.sequence import Grammar, Priority, SamplingOptions, Sequence
from batch_api.errors import BadRequest
from batch_api.schemas.completions import CompletionRequest, Prompt
from batch_api.worker.completion_answer import CompletionReply
from batch_api.worker.deps import CompletionBody, EngineHere, RequestPriority, WaitingClient
from batch_api.worker.generation import respond
from batch_api.worker.prompt import LONG_CHARACTERS
from batch_api.worker.sampling import check_logprobs, check_text, room_for_answer, sampling_options
from batch_api.worker.structure import structure

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

router = APIRouter()


@router.post("/v1/completions")
async def create_completion(
    body: CompletionBody, priority: RequestPriority, served: EngineHere, client: WaitingClient
) -> Response:
    served.check_model(body.model)
    return await respond(CompletionQuestion(body, priority), served, client)


class CompletionQuestion:
    def __init__(self, body: CompletionRequest, priority: Priority) -> None:
        self.stream = body.stream
        self._prompts = body.prompts
        self.answers = len(self._prompts) * body.generated
        self.answers_param = "n" if len(self._prompts) == 1 else "prompt"
        self._body = body
        self.priority = priority
        self._structure = structure(body)
        self.is_costly = bool(self._structure) or sum(map(len, self._prompts)) > LONG_CHARACTERS

    def reply(self, engine: "Engine") -> CompletionReply:
        grammar = self._structure.grammar(engine.grammars) if self._structure else None
        sequences = [
            sequence
            for prompt in self._prompts
            for sequence in self._sequences(_prompt_ids(prompt, engine), engine, grammar)
        ]
        check_logprobs(sequences)
        return CompletionReply(self._body, engine, sequences, echoes=self._echoes(engine))

    def _echoes(self, engine: "Engine") -> list[str]:
        """What stands before each answer."""
        if not self._body.echo:
            return [""] * self.answers
        texts = [_text(prompt, engine) for prompt in self._prompts]
        return [text for text in texts for _ in range(self._body.generated)]

    def _sequences(
        self, ids: list[int], engine: "Engine", grammar: Grammar | None
    ) -> list[Sequence]:
        options = self._options(engine, len(ids), grammar)
        return [
            Sequence(ids, options, priority=self.priority, choice=number)
            for number in range(self._body.generated)
        ]

    def _options(
        self, engine: "Engine", prompt_tokens: int, grammar: Grammar | None
    ) -> SamplingOptions:
        body = self._body
        max_tokens = room_for_answer(
            body.max_tokens,
            prompt_tokens=prompt_tokens,
            max_length=engine.max_length,
            param="prompt",
        )
        return sampling_options(
            body,
            engine,
            max_tokens=max_tokens,
            logprobs=_logprobs(body),
            prompt_logprobs=_prompt_logprobs(body),
            grammar=grammar,
        )


def _logprobs(body: CompletionRequest) -> int | None:
    """The best are chosen by them, even if nobody else wants them."""
    return 0 if body.logprobs is None and body.generated > body.n else body.logprobs


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    """An answer without tokens is what the engine gives with a prompt's logprobs only."""
    if body.echo and body.logprobs is not None:
        return body.logprobs
    return 0 if body.max_tokens == 0 else None


def _prompt_ids(prompt: Prompt, engine: "Engine") -> list[int]:
    """An empty text is where all texts begin, if the model has a token for that.

    Raises BadRequest.
    """
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        check_text(prompt, max_length=engine.max_length, param="prompt")
        begin = tokenizer.bos_token_id or tokenizer.eos_token_id
        prompt = tokenizer.encode(prompt) or ([] if begin is None else [begin])
    if not prompt:
        raise BadRequest("The prompt is empty.", param="prompt", code="invalid_value")
    if unknown := [token for token in prompt if token >= engine.vocab_size]:
        message = f"The prompt has the token {unknown[0]}, but this model has {engine.vocab_size}."
        raise BadRequest(message, param="prompt", code="invalid_value")
    return prompt


def _text(prompt: Prompt, engine: "Engine") -> str:
    return prompt if isinstance(prompt, str) else str(engine.tokenizer.decode(prompt))
