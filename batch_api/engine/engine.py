"""The engine: sequences in, text out, a step at a time. One thread calls it; there are no locks."""

from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerBase

from batch_api.engine.batcher import Batcher
from batch_api.engine.delta import Delta
from batch_api.engine.detokenizer import AnswerText
from batch_api.engine.errors import (
    GrammarRefused,
    ModelNotLoadable,
    PromptTooLong,
    UnknownToken,
)
from batch_api.engine.grammar import GrammarCompiler
from batch_api.engine.loading import (
    choose_device,
    choose_dtype,
    end_tokens,
    load_model,
    load_tokenizer,
)
from batch_api.engine.logprobs import token_logprobs
from batch_api.engine.model import Model
from batch_api.engine.prompt_scores import PromptScores
from batch_api.engine.sampler import NO_TOKEN, sample
from batch_api.engine.sequence import FinishReason, Sequence, TokenLogprob

__all__ = [
    "Delta",
    "Engine",
    "GrammarRefused",
    "ModelNotLoadable",
    "PromptTooLong",
    "UnknownToken",
]


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
        self.vocab_size = model.vocab_size
        self._model = model
        self._batcher = Batcher(max_sequences=self.max_sequences, prefill_budget=prefill_budget)
        self._end_tokens = end_tokens(model.network, tokenizer)
        self.grammars = GrammarCompiler(tokenizer, self.vocab_size, self._end_tokens)
        self._texts: dict[Sequence, AnswerText] = {}
        self._prompt_scores = PromptScores()

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
        """Queue it; a longer answer than fits ends with LENGTH.

        Raises PromptTooLong or UnknownToken.
        """
        size, options = len(sequence.prompt), sequence.options
        if size + min(1, options.max_tokens) > self.max_length:
            raise PromptTooLong(prompt_tokens=size, max_length=self.max_length)
        for token in (*sequence.prompt, *options.logit_bias):
            if not 0 <= token < self.vocab_size:
                raise UnknownToken(token, vocab_size=self.vocab_size)
        self._texts[sequence] = AnswerText(
            self.tokenizer,
            options.stop,
            min_tokens=options.min_tokens,
            shown=options.shown_tokens,
        )
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
        sampled = [chunk.sequence for chunk in chunks if chunk.is_last]
        logits = self._prompt_scores.take(chunks, self._model.forward(chunks))
        self._batcher.advance(chunks)
        return [self._extend(each, *new) for each, new in self._sample(logits, sampled)]

    def _sample(
        self, logits: torch.Tensor, sequences: list[Sequence]
    ) -> Iterator[tuple[Sequence, tuple[int, TokenLogprob | None]]]:
        """Each sequence's new token, with its logprob if that was asked for."""
        if not sequences:
            return
        rows = [row for row, each in enumerate(sequences) if each.options.logprobs is not None]
        raw = logits[rows] if rows else logits[:0]  # a copy: sampling changes the logits
        tokens = sample(logits, sequences, end_tokens=self._end_tokens)
        whole = [place for place, row in enumerate(rows) if tokens[row] != NO_TOKEN]
        rows = [rows[place] for place in whole]
        top = [sequences[row].options.logprobs or 0 for row in rows]
        logprobs = token_logprobs(raw[whole], [tokens[row] for row in rows], top)
        for sequence, token in zip(sequences, tokens, strict=True):
            asked = sequence.options.logprobs is not None and token != NO_TOKEN
            yield sequence, (token, next(logprobs) if asked else None)

    def _extend(self, sequence: Sequence, token: int, logprob: TokenLogprob | None) -> Delta:
        scores = self._prompt_scores.pop(sequence)
        if sequence.options.max_tokens == 0 or (sequence.matcher and sequence.matcher.is_stuck):
            text = self._texts[sequence].flush()
            self._retire(sequence, FinishReason.LENGTH)
            return Delta(sequence, text, 0, FinishReason.LENGTH, prompt_logprobs=scores)
        if token == NO_TOKEN:
            return self._break_off(sequence)
        sequence.tokens.append(token)
        text, reason = self._read(sequence, token)
        if reason is not None:
            self._retire(sequence, reason)
        elif sequence.matcher:
            sequence.matcher.accept(token)
        logprobs = () if logprob is None else (logprob,)
        return Delta(sequence, text, 1, reason, logprobs, scores)

    def _break_off(self, sequence: Sequence) -> Delta:
        """Its numbers must not stay in the cache: 0 times NaN is NaN for whoever comes next."""
        assert sequence.slot is not None
        self._model.cache.clear(sequence.slot)
        self._retire(sequence, FinishReason.BROKEN)
        return Delta(sequence, "", 0, FinishReason.BROKEN)

    def _read(self, sequence: Sequence, token: int) -> tuple[str, FinishReason | None]:
        """The text that may be shown now, and whether the answer ends; what ends it is no text."""
        answer = self._texts[sequence]
        reason = self._finish_reason(sequence)
        text = "" if reason is FinishReason.STOP else answer.add(token)
        if answer.is_stopped:
            reason = FinishReason.STOP
        return text + (answer.flush() if reason else ""), reason

    def _finish_reason(self, sequence: Sequence) -> FinishReason | None:
        options, last = sequence.options, sequence.tokens[-1]
        goes_on = options.ignore_end and not options.grammar
        if last in options.stop_tokens or (last in self._end_tokens and not goes_on):
            return FinishReason.STOP
        if len(sequence.tokens) == options.max_tokens or sequence.length == self.max_length:
            return FinishReason.LENGTH
        return None

    def _retire(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        self._batcher.remove(sequence)
        self._texts.pop(sequence, None)
        self._prompt_scores.pop(sequence)
