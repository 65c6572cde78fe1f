"""Which texts go through the model in the next pass, of all that wait; no tensors here."""

from collections.abc import Iterable, Iterator
from itertools import islice

from batch_api.engine.sequence import Priority
from batch_api.engine.texts import Row, Texts

_WINDOW = 2048  # rows looked at for one pass: as many as a request may have
_WASTE = 0.25  # the padding that a pass may have, as a share of its tokens …
_WASTE_TOKENS = 64  # … or as tokens, about what a pass costs whatever is in it


class Packer:
    """Sorted by length and cut into passes, so that neighbours need little padding; the pass with
    the oldest row goes first, so that nobody waits for ever. Interactive before batch.
    """

    def __init__(self, *, max_rows: int, max_tokens: int) -> None:
        """Of one pass; `max_tokens` counts padding too, and a single row may have more."""
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._waiting: dict[Priority, dict[Row, None]] = {each: {} for each in Priority}

    @property
    def has_work(self) -> bool:
        return any(self._waiting.values())

    def add(self, texts: Texts) -> None:
        self._waiting[texts.priority].update(dict.fromkeys(texts.rows))

    def remove(self, texts: Texts) -> None:
        waiting = self._waiting[texts.priority]
        for row in texts.rows:
            waiting.pop(row, None)

    def next(self) -> list[Row]:
        """The rows of one pass, which wait no longer; none if nothing waits."""
        waiting = next(filter(None, self._waiting.values()), None)
        if waiting is None:
            return []
        oldest = next(iter(waiting))
        longest_first = sorted(islice(waiting, _WINDOW), key=_length, reverse=True)
        rows = next(each for each in self._cut(longest_first) if oldest in each)
        for row in rows:
            del waiting[row]
        return rows

    def _cut(self, longest_first: Iterable[Row]) -> Iterator[list[Row]]:
        rows: list[Row] = []
        tokens = 0
        for row in longest_first:
            if rows and not self._fits(rows, tokens, row):
                yield rows
                rows, tokens = [], 0
            rows.append(row)
            tokens += row.length
        yield rows

    def _fits(self, rows: list[Row], tokens: int, row: Row) -> bool:
        """`tokens`: of the rows, the first of which is the longest."""
        padded = rows[0].length * (len(rows) + 1)
        tokens += row.length
        if len(rows) == self._max_rows or padded > self._max_tokens:
            return False
        return padded - tokens <= max(_WASTE_TOKENS, _WASTE * tokens)


def _length(row: Row) -> int:
    return row.length
