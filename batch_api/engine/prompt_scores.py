"""Logprobs of prompts' tokens, collected chunk by chunk for the sequences that ask for them."""

import torch

from batch_api.engine.batcher import Chunk
from batch_api.engine.logprobs import token_logprobs
from batch_api.engine.sequence import Sequence, TokenLogprob


class PromptScores:
    """What is known so far; a sequence that asks for nothing costs nothing."""

    def __init__(self) -> None:
        self._scores: dict[Sequence, list[TokenLogprob | None]] = {}

    def take(self, chunks: list[Chunk], logits: torch.Tensor) -> torch.Tensor:
        """Keep the prompts' logprobs; the rest of the logits, to sample from: [sampled, vocab].

        logits: [positions, vocab], of the chunks' scored positions.
        """
        if not any(chunk.scores_prompt for chunk in chunks):
            return logits
        last, end = [], 0
        for chunk in chunks:
            start, end = end, end + chunk.scored
            if chunk.scores_prompt:
                self._score(chunk, logits[start:end])
            if chunk.is_last:
                last.append(end - 1)
        return logits[torch.tensor(last, dtype=torch.long, device=logits.device)]

    def pop(self, sequence: Sequence) -> tuple[TokenLogprob | None, ...]:
        """Once; nothing where nothing was asked for."""
        return tuple(self._scores.pop(sequence, ()))

    def _score(self, chunk: Chunk, logits: torch.Tensor) -> None:
        """The logits at a position are about the next one's token; the first has none."""
        sequence = chunk.sequence
        scores = self._scores.setdefault(sequence, [None])
        tokens = sequence.prompt[chunk.start + 1 : chunk.stop + 1]
        top = [sequence.options.prompt_logprobs or 0] * len(tokens)
        scores += token_logprobs(logits[: len(tokens)], tokens, top)
