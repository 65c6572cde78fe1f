"""Numbers for a few of the vocabulary's tokens. No torch here."""

from array import array
from collections.abc import Mapping


class SparseRow:
    """Each token once, in buffers that a tensor is made of without a look at each number."""

    def __init__(self, numbers: Mapping[int, float] | None = None) -> None:
        numbers = numbers or {}
        self.tokens = array("q", numbers.keys())
        self.numbers = array("f", numbers.values())
        self._places = {token: place for place, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, number: float) -> None:
        """To the token's number, which is 0 at first."""
        place = self._places.setdefault(token, len(self.tokens))
        if place == len(self.tokens):
            self.tokens.append(token)
            self.numbers.append(0)
        self.numbers[place] += number
