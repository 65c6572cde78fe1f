"""What customers order: batches of many kinds, and what each line is to come back with."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import msgspec

from tests.standin import DIE, MODEL, Fault, answer_to, vector_of

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
Window = Literal["24h", "1h"]

_ENDPOINTS: tuple[Endpoint, ...] = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_REFUSED = Fault(status=400)


class Kind(StrEnum):
    GOOD = "good"
    REFUSED = "refused"
    """The upstream answers it 400."""
    POISON = "poison"
    """The upstream's process dies of it."""


@dataclass(frozen=True, slots=True)
class Line:
    custom_id: str
    kind: Kind
    padding: int

    @property
    def text(self) -> str:
        """What is asked, and the stand-in's journal names by its first line."""
        return f"{self.custom_id}\n{'x' * self.padding}" if self.padding else self.custom_id

    @property
    def content(self) -> str:
        match self.kind:
            case Kind.REFUSED:
                return f"{_REFUSED}{self.text}"
            case Kind.POISON:
                return f"{DIE}{self.text}"
        return self.text

    def body(self, endpoint: Endpoint) -> dict[str, Any]:
        match endpoint:
            case "/v1/chat/completions":
                messages = [{"role": "user", "content": self.content}]
                return {"model": MODEL, "messages": messages}
            case "/v1/completions":
                return {"model": MODEL, "prompt": self.content}
        return {"model": MODEL, "input": self.content}

    def is_answered_by(self, endpoint: Endpoint, body: dict[str, Any]) -> bool:
        match endpoint:
            case "/v1/chat/completions":
                said = body["choices"][0]["message"]["content"]
            case "/v1/completions":
                said = body["choices"][0]["text"]
            case _:
                return bool(body["data"][0]["embedding"] == vector_of(self.text))
        return bool(said == answer_to(self.text))


@dataclass(slots=True)
class Order:
    """A batch to be, and what has been acknowledged of it."""

    name: str
    endpoint: Endpoint
    lines: list[Line]
    window: Window
    in_parts: bool
    is_repeated: bool
    """Created once more, under the same key."""
    cancel_after_seconds: float | None
    drops_input: bool
    """While the batch runs."""
    drops_results: bool
    drops_batch: bool
    file_id: str | None = None
    batch_id: str | None = None
    created_at: float = 0.0
    """On this machine's monotonic clock."""
    cancel_was_acknowledged: bool = False
    has_dropped_input: bool = False
    status: str | None = None
    """At its end."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Of its files, by id, as they were when it ended."""
    gone: set[str] = field(default_factory=set)
    """Ids that were deleted."""

    @property
    def input(self) -> bytes:
        return b"".join(
            msgspec.json.encode(
                {
                    "custom_id": line.custom_id,
                    "method": "POST",
                    "url": self.endpoint,
                    "body": line.body(self.endpoint),
                }
            )
            + b"\n"
            for line in self.lines
        )


def orders(name: str, seed: str) -> Iterator[Order]:
    """Without end; each line's custom_id is like no other's."""
    chance = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield _order(f"{name}-{number}", chance)


def _order(name: str, chance: random.Random) -> Order:
    may_be_poisoned = chance.random() < 0.1
    size = chance.randint(100, 400) if chance.random() < 0.15 else chance.randint(1, 30)
    lines = [_line(f"{name}-{n}", chance) for n in range(size)]
    if may_be_poisoned:
        place = chance.randrange(size)
        lines[place] = Line(f"{name}-{place}", Kind.POISON, 0)
    return Order(
        name=name,
        endpoint=chance.choice(_ENDPOINTS),
        lines=lines,
        window="1h" if chance.random() < 0.3 else "24h",
        in_parts=chance.random() < 0.2,
        is_repeated=chance.random() < 0.3,
        cancel_after_seconds=chance.uniform(0, 3) if chance.random() < 0.2 else None,
        drops_input=chance.random() < 0.2,
        drops_results=chance.random() < 0.1,
        drops_batch=chance.random() < 0.2,
    )


def _line(custom_id: str, chance: random.Random) -> Line:
    kind = Kind.REFUSED if chance.random() < 0.05 else Kind.GOOD
    return Line(custom_id, kind, chance.randrange(20_000) if chance.random() < 0.05 else 0)
