"""What a parser finds in an answer, in order; and what a syntax is."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class CallBegins:
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the last call's arguments, as the model wrote them."""

    text: str


Piece = Text | CallBegins | Arguments


class Parser(Protocol):
    """Reads one answer as it comes. What turns out not to be a call is text."""

    def add(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]:
        """What was held back, once no text follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around the calls of an answer that is held to calling."""

    begin: str = ""
    separator: str = ""
    end: str = ""


class Syntax(Protocol):
    @property
    def markers(self) -> tuple[str, ...]:
        """What may be special tokens of the model, which are usually not shown."""

    @property
    def frame(self) -> Frame: ...

    def around(self, name: str) -> tuple[str, str]:
        """What stands before and after the arguments of one call."""

    def parser(self, names: frozenset[str]) -> Parser:
        """`names`: of the functions that may be called; what calls another is text."""

    def call_id(self) -> str:
        """A new one."""

    def known_id(self, id: str) -> str:
        """How the model's template is told of a call with this id."""
