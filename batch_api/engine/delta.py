"""What the engine tells of a step. No torch here: the worker's HTTP half reads it."""

from dataclasses import dataclass

from batch_api.engine.sequence import FinishReason, Sequence, TokenLogprob


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step did for one sequence."""

    sequence: Sequence
    text: str  # final text: never half a character, never part of a possible stop string
    tokens: int
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprob, ...] = ()  # of the new tokens, if they were asked for
    prompt_logprobs: tuple[
        TokenLogprob | None, ...
    ] = ()  # with the first; None: of the first token

    @property
    def is_last(self) -> bool:
        return self.finish_reason is not None

    @property
    def is_news(self) -> bool:
        return bool(self.text)

    @property
    def is_broken(self) -> bool:
        return self.finish_reason is FinishReason.BROKEN
