"""Which sequences run in the next step, and how much of each; no tensors here."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from batch_api.engine.sequence import Priority, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """The positions start to stop of one sequence, which lives in a slot of the cache."""

    sequence: Sequence
    slot: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def is_last(self) -> bool:
        """Whether every position is in the cache after this, so that a token is sampled."""
        return self.stop == self.sequence.length

    @property
    def scores_prompt(self) -> bool:
        """Whether logprobs of prompt tokens come of it."""
        wanted = self.sequence.options.prompt_logprobs is not None
        return wanted and self.start < len(self.sequence.prompt)

    @property
    def scored(self) -> int:
        """How many of its last positions need logits."""
        return self.size if self.scores_prompt else int(self.is_last)

    @property
    def token_ids(self) -> list[int]:
        return self.sequence.span(self.start, self.stop)


class Batcher:
    """Sequences join and leave at every step; interactive before batch, then arrival."""

    def __init__(
        self, *, max_sequences: int, prefill_budget: int, reserve: int | None = None
    ) -> None:
        """`prefill_budget`: prompt tokens a step; decoding sequences always run. `reserve`: slots
        that batch sequences leave free, so that an interactive one joins at once.
        """
        self._prefill_budget = prefill_budget
        reserve = _default_reserve(max_sequences) if reserve is None else reserve
        self._most_batch = max_sequences - reserve
        self._free_slots = list(range(max_sequences))
        self._running: dict[Sequence, None] = {}  # dicts as ordered sets: arrival is kept
        self._waiting: dict[Priority, dict[Sequence, None]] = {each: {} for each in Priority}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, sequence: Sequence) -> None:
        self._waiting[sequence.priority][sequence] = None

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or cancelled sequence out; its slot is free for the next step."""
        self._waiting[sequence.priority].pop(sequence, None)
        if sequence.slot is not None:
            del self._running[sequence]
            heappush(self._free_slots, sequence.slot)
            sequence.slot = None

    def next(self) -> list[Chunk]:
        """One token of every decoding sequence by slot, then chunks of prompts."""
        decoding = [_chunk(each, 1) for each in self._running if _is_decoding(each)]
        decoding.sort(key=lambda chunk: chunk.slot)
        return decoding + list(self._prompt_chunks())

    def advance(self, chunks: list[Chunk]) -> None:
        """The chunks' positions are in the cache now."""
        for chunk in chunks:
            chunk.sequence.cached = chunk.stop

    def _prompt_chunks(self) -> Iterator[Chunk]:
        budget = self._prefill_budget
        for sequence in self._prompts():
            size = min(budget, sequence.length - sequence.cached)
            yield _chunk(sequence, size)
            budget -= size
            if budget == 0:
                return

    def _prompts(self) -> Iterator[Sequence]:
        for priority in Priority:
            begun = [each for each in self._running if each.priority is priority]
            yield from (each for each in begun if not _is_decoding(each))
            while self._waiting[priority] and self._has_room(priority):
                yield self._admit(priority)

    def _has_room(self, priority: Priority) -> bool:
        if not self._free_slots or priority is Priority.INTERACTIVE:
            return bool(self._free_slots)
        return sum(each.priority is Priority.BATCH for each in self._running) < self._most_batch

    def _admit(self, priority: Priority) -> Sequence:
        sequence = next(iter(self._waiting[priority]))
        del self._waiting[priority][sequence]
        sequence.slot = heappop(self._free_slots)
        sequence.started_at = time.monotonic()
        self._running[sequence] = None
        return sequence


def _default_reserve(max_sequences: int) -> int:
    return max(1, max_sequences // 16) if max_sequences > 1 else 0


def _is_decoding(sequence: Sequence) -> bool:
    return sequence.cached == sequence.length - 1 and bool(sequence.tokens)


def _chunk(sequence: Sequence, size: int) -> Chunk:
    assert sequence.slot is not None
    return Chunk(sequence, sequence.slot, sequence.cached, sequence.cached + size)
