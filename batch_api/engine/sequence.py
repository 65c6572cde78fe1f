"""A sequence: one request inside the engine, with what is asked of it and how far it is.

No torch here: the batcher and the worker's HTTP half import this without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from random import Random
from typing import Protocol

from batch_api.engine.sparse import SparseRow


class Priority(IntEnum):
    """Who goes first: the lower number."""

    INTERACTIVE = 0
    BATCH = 1


class FinishReason(StrEnum):
    STOP = "stop"  # the end token or a stop string
    LENGTH = "length"  # max_tokens, or the cache's last position
    CANCELLED = "cancelled"
    BROKEN = "broken"  # the model's numbers are not finite


class Matcher(Protocol):
    """How far one answer is in its grammar."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing but the end may follow."""

    @property
    def is_stuck(self) -> bool:
        """Whether no token at all may follow, or none that could be found in time."""

    def mask(self) -> bytes:
        """Which tokens may follow: a bit for each, from the lowest; the end is among them."""

    def accept(self, token: int) -> None:
        """The answer's next token, which the mask allowed."""


class Grammar(Protocol):
    """What an answer must match; compiled once, shared by sequences."""

    def matcher(self) -> Matcher: ...


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithms of what the model itself gives: before penalties, biases, grammar,
    temperature and truncation, as in vLLM; -9999.0 is the least.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens with theirs, the likeliest first; as many as were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    max_tokens: int
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    shown_tokens: frozenset[int] = frozenset()  # special ones that show in the text all the same
    min_tokens: int = 0
    ignore_end: bool = False  # for benchmarks: go on past the end token; not where a grammar ends
    logprobs: int | None = None  # so many likeliest tokens beside each token; None: no logprobs
    prompt_logprobs: int | None = None  # the same for the prompt's tokens
    grammar: Grammar | None = None  # what the answer must match

    def __post_init__(self) -> None:
        if self.max_tokens < (1 if self.prompt_logprobs is None else 0):
            raise ValueError("max_tokens must be at least 1, or 0 for logprobs of a prompt alone")
        if not self.temperature >= 0:
            raise ValueError("temperature must be at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError("min_p must be from 0 to 1")
        if self.top_k < 0:
            raise ValueError("top_k must be at least 0")
        if not self.repetition_penalty > 0:
            raise ValueError("repetition_penalty must be above 0")

    @property
    def has_penalties(self) -> bool:
        additive = self.frequency_penalty or self.presence_penalty
        return bool(additive) or self.repetition_penalty != 1


class Sequence:
    """A prompt and the tokens generated after it.

    `slot`, `started_at` and `cached` belong to the batcher.
    """

    def __init__(
        self,
        prompt: list[int],
        options: SamplingOptions,
        *,
        priority: Priority = Priority.INTERACTIVE,
        choice: int = 0,
    ) -> None:
        """`choice`: which of several answers to one prompt; each draws differently."""
        if not prompt:
            raise ValueError("a prompt needs at least one token")
        self.prompt = prompt
        self.options = options
        self.priority = priority
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.slot: int | None = None
        self.started_at: float | None = None  # monotonic: when it got its first slot
        self.cached = 0
        self.matcher = options.grammar.matcher() if options.grammar else None
        self.bias = SparseRow(options.logit_bias)
        self._counts = SparseRow()
        self._counted = 0  # of the answer's tokens
        if options.repetition_penalty != 1:
            self._counts = SparseRow(dict.fromkeys(prompt, 0))
        self._random = Random(_seed(options.seed, choice))  # noqa: S311 (not for secrets)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def is_greedy(self) -> bool:
        return self.options.temperature == 0

    def span(self, start: int, stop: int) -> list[int]:
        """The tokens at positions start to stop, of the prompt and then of the answer."""
        size = len(self.prompt)
        return self.prompt[start:stop] + self.tokens[max(0, start - size) : max(0, stop - size)]

    def counts(self) -> SparseRow:
        """How often each token is in the answer: not counted again, but from where it was left.

        With a repetition penalty the prompt's other tokens are there too, with 0.
        """
        for token in self.tokens[self._counted :]:
            self._counts.add(token, 1)
        self._counted = len(self.tokens)
        return self._counts

    def draw(self) -> float:
        """A uniform number in [0, 1), from this sequence's own generator: one for each token."""
        return self._random.random()


def _seed(seed: int | None, choice: int) -> str | None:
    """As text, because Random takes an integer without its sign."""
    if seed is None:
        return None
    return f"{seed}:{choice}" if choice else str(seed)
