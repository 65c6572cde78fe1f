"""Texts: what one request wants embedded, as the ids that are fed. No torch here."""

from dataclasses import dataclass

from batch_api.engine.sequence import Priority


class Texts:
    """Several token arrays; each becomes a vector of `dimensions` (None: all the model has)."""

    def __init__(
        self,
        token_ids: list[list[int]],
        *,
        dimensions: int | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        if not token_ids or not all(token_ids):
            raise ValueError("there must be a text, and each needs at least one token")
        self.dimensions = dimensions
        self.priority = priority
        self.rows = [Row(self, index, ids) for index, ids in enumerate(token_ids)]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One text of a request, which is one row of a pass."""

    texts: Texts
    index: int
    token_ids: list[int]

    @property
    def length(self) -> int:
        return len(self.token_ids)
