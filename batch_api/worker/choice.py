"""One choice of an answer, as its deltas come: text, calls of functions, and how it ended."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_api.engine.sequence import FinishReason, TokenLogprob
from batch_api.worker.tool_syntax.pieces import Arguments, CallBegins, Piece, Text

if TYPE_CHECKING:
    from batch_api.engine.delta import Delta
    from batch_api.worker.tools import Toolbox


@dataclass(slots=True)
class Call:
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class CallPart:
    """Either a call begins (`begun`), or it has more arguments."""

    index: int
    begun: Call | None = None
    arguments: str = ""


Part = str | CallPart
"""Some text, or some of a call."""


class Choice:
    def __init__(
        self, toolbox: "Toolbox | None" = None, *, hidden: frozenset[int] = frozenset()
    ) -> None:
        """`toolbox`: what the answer may call, if anything. `hidden`: tokens that end an answer
        without showing.
        """
        self.texts: list[str] = []
        self.calls: list[Call] = []
        self.tokens = 0
        self.total_logprob = 0.0
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None
        self._toolbox = toolbox
        self._parser = toolbox.parser() if toolbox else None
        self._hidden = hidden
        self._is_over = False
        self._taken_logprobs = 0

    @property
    def must_call(self) -> bool:
        return self._toolbox is not None and self._toolbox.must_call

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def add(self, delta: "Delta") -> list[Part]:
        self.tokens += delta.tokens
        self.finish_reason = delta.finish_reason
        self.logprobs += delta.logprobs
        self.total_logprob += sum(token.logprob for token in delta.logprobs)
        if self._ends_hidden:
            self.logprobs.pop()
        parts = [self._part(piece) for piece in self._pieces(delta)]
        return [part for part in parts if part is not None]

    def take_logprobs(self) -> list[TokenLogprob]:
        """Those since the last call."""
        taken = self.logprobs[self._taken_logprobs :]
        self._taken_logprobs = len(self.logprobs)
        return taken

    @property
    def _ends_hidden(self) -> bool:
        """Whether the last token only says that the answer ends."""
        is_end = self.finish_reason is FinishReason.STOP and bool(self.logprobs)
        return is_end and self.logprobs[-1].token in self._hidden

    def _pieces(self, delta: "Delta") -> list[Piece]:
        if self._parser is None:
            return [Text(delta.text)] if delta.text else []
        pieces = self._parser.add(delta.text)
        if delta.finish_reason is None or self.must_call:  # then what is held is of a cut call
            return pieces
        return pieces + self._parser.finish()

    def _part(self, piece: Piece) -> Part | None:
        """None for what comes after the only call that is allowed."""
        if isinstance(piece, CallBegins) and self._has_enough_calls:
            self._is_over = True
        if self._is_over:
            return None
        match piece:
            case Text(text):
                self.texts.append(text)
                return text
            case CallBegins(name):
                return self._begin(name)
            case Arguments(text):
                self.calls[-1].pieces.append(text)
                return CallPart(len(self.calls) - 1, arguments=text)

    @property
    def _has_enough_calls(self) -> bool:
        return self._toolbox is not None and self._toolbox.at_most_one and bool(self.calls)

    def _begin(self, name: str) -> CallPart:
        assert self._toolbox is not None
        self.calls.append(Call(self._toolbox.syntax.call_id(), name))
        return CallPart(len(self.calls) - 1, begun=self.calls[-1])
