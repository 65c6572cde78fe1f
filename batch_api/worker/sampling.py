"""From what a request asks of its tokens to the engine's options."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from batch_api.engine.sequence import Grammar, SamplingOptions, Sequence
from batch_api.errors import BadRequest
from batch_api.schemas.sampling import SamplingBody

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine

MAX_LOGPROBS = 2**21  # of one request: about 200 MB
_CHARACTERS_A_TOKEN = 128  # the longest of any model are that many blanks


def sampling_options(
    body: SamplingBody,
    engine: "Engine",
    *,
    max_tokens: int,
    logprobs: int | None,
    grammar: Grammar | None,
    prompt_logprobs: int | None = None,
    shown_tokens: frozenset[int] = frozenset(),
) -> SamplingOptions:
    """Raises BadRequest."""
    if body.min_tokens > max_tokens:
        raise BadRequest(
            f"'min_tokens' is {body.min_tokens}, but the answer has at most {max_tokens} tokens.",
            param="min_tokens",
            code="integer_above_max_value",
        )
    return SamplingOptions(
        max_tokens=max_tokens,
        temperature=0 if body.is_greedy else body.temperature,
        top_p=1 if body.is_greedy else body.top_p,
        top_k=max(body.top_k, 0),
        min_p=body.min_p,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=_biases(body, engine),
        seed=body.seed,
        stop=tuple(body.stop),
        stop_tokens=frozenset(body.stop_token_ids),
        shown_tokens=shown_tokens,
        min_tokens=body.min_tokens,
        ignore_end=body.ignore_eos,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        grammar=grammar,
    )


def room_for_answer(limit: int | None, *, prompt_tokens: int, max_length: int, param: str) -> int:
    """How many tokens an answer may have: without a limit of its own, what fits.

    Raises BadRequest.
    """
    room = max_length - prompt_tokens
    max_tokens = max(room, 1) if limit is None else limit
    if max_tokens <= room:
        return max_tokens
    raise BadRequest(  # in OpenAI's words, by which LiteLLM knows it
        f"This model's maximum context length is {max_length} tokens, but the prompt has"
        f" {prompt_tokens} and the answer needs room for {str(max_tokens)[:20]}.",
        param=param,
        code="context_length_exceeded",
    )


def check_text(text: str, *, max_length: int, param: str) -> None:
    """Raises BadRequest for what can't fit, as to count its tokens could take a minute."""
    if len(text) > max_length * _CHARACTERS_A_TOKEN:
        raise BadRequest(
            f"This model's maximum context length is {max_length} tokens, but the prompt has"
            f" {len(text)} characters.",
            param=param,
            code="context_length_exceeded",
        )


def check_logprobs(sequences: Iterable[Sequence]) -> None:
    """Raises BadRequest if there could be too many to tell."""
    count = sum(map(_most_logprobs, sequences))
    if count > MAX_LOGPROBS:
        raise BadRequest(
            f"These answers could have {count} logprobs, but at most {MAX_LOGPROBS} are told:"
            " lower the number of prompts, of answers, of their tokens or of likeliest tokens.",
            param="logprobs",
            code="integer_above_max_value",
        )


def _most_logprobs(sequence: Sequence) -> int:
    """Of the answer, and of the prompt: each token's own beside those of the likeliest ones."""
    options = sequence.options
    of_answer = 0 if options.logprobs is None else 1 + options.logprobs
    of_prompt = 0 if options.prompt_logprobs is None else 1 + options.prompt_logprobs
    return options.max_tokens * of_answer + len(sequence.prompt) * of_prompt


def _biases(body: SamplingBody, engine: "Engine") -> dict[int, float]:
    biases = {int(token): bias for token, bias in body.logit_bias.items()}
    known = engine.vocab_size
    if unknown := [token for token in biases if token >= known]:
        raise BadRequest(
            f"'logit_bias' names the token {unknown[0]}, but this model has {known} tokens.",
            param=f"logit_bias.{unknown[0]}",
            code="invalid_value",
        )
    return biases
