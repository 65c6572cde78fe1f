"""The engine: sequences in, text out, a step at a time. One thread calls it; there are no locks."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from batch_api.engine.batcher import Batcher
from batch_api.engine.detokenizer import AnswerText
from batch_api.engine.errors import ModelNotLoadable, PromptTooLong
from batch_api.engine.loading import (
    choose_device,
    choose_dtype,
    end_tokens,
    load_model,
    load_tokenizer,
)
from batch_api.engine.model import Model
from batch_api.engine.sampler import sample
from batch_api.engine.sequence import FinishReason, Sequence, TokenLogprob

__all__ = ["Delta", "Engine", "ModelNotLoadable", "PromptTooLong"]


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step did for one sequence."""

    sequence: Sequence
    text: str  # final text: never half a character, never part of a possible stop string
    tokens: int
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprob, ...] = ()  # of the new tokens, if they were asked for


class Engine:
    def __init__(
        self, model: Model, tokenizer: PreTrainedTokenizerBase, *, prefill_budget: int
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = model.cache.positions
        self.max_sequences = model.cache.slots
        self.device = str(model.network.device)
        self.dtype = str(model.network.dtype).removeprefix("torch.")
        self.memory_bytes = model.memory_bytes
        self._model = model
        self._batcher = Batcher(max_sequences=self.max_sequences, prefill_budget=prefill_budget)
        self._end_tokens = end_tokens(model.network, tokenizer)
        self._texts: dict[Sequence, AnswerText] = {}

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_sequences: int = 64,
        max_length: int | None = None,
        prefill_budget: int = 512,
    ) -> "Engine":
        """A folder or a hub name. `max_length`: positions of a sequence, prompt and answer, up to
        what the model knows (default: what memory allows, 2,048 to 8,192). `max_sequences`: fewer,
        where memory is short. Raises ModelNotLoadable.
        """
        place = choose_device(device)
        loaded = load_model(
            model,
            device=place,
            dtype=choose_dtype(dtype, place),
            max_sequences=max_sequences,
            max_length=max_length,
        )
        return cls(loaded, load_tokenizer(model), prefill_budget=prefill_budget)

    @property
    def running(self) -> int:
        return self._batcher.running

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue it. Raises PromptTooLong; a longer answer than fits ends with LENGTH."""
        size = len(sequence.prompt)
        if size + 1 > self.max_length:
            raise PromptTooLong(prompt_tokens=size, max_length=self.max_length)
        self._texts[sequence] = AnswerText(self.tokenizer, sequence.options.stop)
        self._batcher.add(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """At any step, any number of times; there is no delta for it."""
        if not sequence.is_finished:
            self._retire(sequence, FinishReason.CANCELLED)

    def step(self) -> list[Delta]:
        """One forward pass: a delta for each sequence that has a new token."""
        chunks = self._batcher.next()
        if not chunks:
            return []
        logits = self._model.forward(chunks)
        sampled = [chunk.sequence for chunk in chunks if chunk.is_last]
        tokens = sample(logits, sampled) if sampled else []
        self._batcher.advance(chunks)
        return [self._extend(each, token) for each, token in zip(sampled, tokens, strict=True)]

    def _extend(self, sequence: Sequence, token: int) -> Delta:
        sequence.tokens.append(token)
        answer = self._texts[sequence]
        text = answer.add(token)
        reason = FinishReason.STOP if answer.is_stopped else self._finish_reason(sequence)
        if reason is not None:
            text += answer.flush()
            self._retire(sequence, reason)
        return Delta(sequence, text, 1, reason)

    def _finish_reason(self, sequence: Sequence) -> FinishReason | None:
        options = sequence.options
        if sequence.tokens[-1] in self._end_tokens and not options.ignore_end:
            return FinishReason.STOP
        if len(sequence.tokens) == options.max_tokens or sequence.length == self.max_length:
            return FinishReason.LENGTH
        return None

    def _retire(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        self._batcher.remove(sequence)
        self._texts.pop(sequence, None)
