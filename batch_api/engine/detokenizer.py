"""From tokens to text, a few at a time; and stop strings, which never show.

Text is given out once it is final: no half character, nothing that may begin a stop string.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HALF = "\ufffd"  # what tokenizers show for bytes that are not a character, or not yet
_PATIENCE = 16  # tokens to wait for the rest of a character, which has four bytes at most


class AnswerText:
    """What a reader of one answer may see, as its tokens come."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        stops: tuple[str, ...],
        *,
        min_tokens: int = 0,
        shown: frozenset[int] = frozenset(),
    ) -> None:
        """`min_tokens`: no stop string ends the answer before more have come. `shown`: special
        tokens that are text here.
        """
        self._detokenizer = Detokenizer(tokenizer, shown=shown)
        self._stops = StopStrings(stops)
        self._unstoppable = min_tokens

    @property
    def is_stopped(self) -> bool:
        return self._stops.is_found

    def add(self, token: int) -> str:
        text = self._stops.add(self._detokenizer.add(token), may_stop=self._unstoppable <= 0)
        self._unstoppable -= 1
        return text

    def flush(self) -> str:
        """The rest, once no token follows."""
        last = self._stops.add(self._detokenizer.flush(), may_stop=self._unstoppable <= 0)
        return last + self._stops.flush()


class Detokenizer:
    """The text of one answer. It decodes a short window only, so its cost is linear."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", *, shown: frozenset[int] = frozenset()
    ) -> None:
        self._tokenizer = tokenizer
        self._shown = shown
        self._context: list[int] = []  # shown before: some decoders look at their left neighbour
        self._pending: list[int] = []

    def add(self, token: int) -> str:
        """The text that this token completes."""
        if token in self._shown:
            return self.flush() + str(self._tokenizer.convert_ids_to_tokens(token))
        self._pending.append(token)
        text = self._text()
        if (not text or text.endswith(_HALF)) and len(self._pending) < _PATIENCE:
            return ""
        self._context, self._pending = self._pending, []
        return text

    def flush(self) -> str:
        """What is left, half characters shown as U+FFFD."""
        text = self._text()
        self._context, self._pending = self._pending, []
        return text

    def _text(self) -> str:
        shown = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(shown) :]

    def _decode(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text


class StopStrings:
    """Cuts a text at the first stop string, and holds back what may be the start of one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.is_found = False

    def add(self, text: str, *, may_stop: bool = True) -> str:
        """The text that may be shown now; nothing once a stop string was found."""
        text, self._held = self._held + text, ""
        if self.is_found or not text:
            return ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found and may_stop:
            self.is_found = True
            return text[: min(found)]
        kept = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


def overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first of `stop`."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
