"""A stand-in engine without torch: what it answers, and when it breaks, is in the prompt.

"say one two three" is answered so, a word a step, and then an end token; "count" never ends by
itself; "break" breaks the engine, and what "does not fit" it refuses. Each id is a character.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from batch_api.engine.delta import Delta
from batch_api.engine.errors import GrammarRefused
from batch_api.engine.sequence import FinishReason, Priority, Sequence, TokenLogprob

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine


@dataclass(slots=True)
class FakeTokenizer:
    """Renders a line for each message, and one before them for the tools and the variables."""

    chat_template: str = "there is one"
    all_special_ids: tuple[int, ...] = (0,)
    bos_token_id: int | None = None
    eos_token_id: int | None = 0
    added_tokens_decoder: dict[int, Any] = field(default_factory=dict)

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **told: Any,
    ) -> str:
        if any(message["content"] == "refuse me" for message in conversation):
            raise TemplateError("roles must\n   alternate")
        head = f"{json.dumps(told)}\n" if told else ""
        return head + "".join(_rendered(message) for message in conversation)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return None

    def convert_ids_to_tokens(self, token: int) -> str:
        return chr(token)


def _rendered(message: dict[str, Any]) -> str:
    extras = {name: message[name] for name in message.keys() - {"role", "content"}}
    more = f" {json.dumps(extras, sort_keys=True)}" if extras else ""
    return f"{message['role']}: {message['content']}{more}\n"


@dataclass(frozen=True, slots=True)
class FakeGrammar:
    """Holds nobody; tells a test what was asked for."""

    asked: Any

    def matcher(self) -> None:
        return None


class FakeGrammars:
    def json_object(self) -> FakeGrammar:
        return FakeGrammar({"type": "object"})

    def json_schema(self, schema: str) -> FakeGrammar:
        if "refuse me" in schema:
            raise GrammarRefused("the schema is refused")
        return FakeGrammar(json.loads(schema))

    def regex(self, pattern: str) -> FakeGrammar:
        return FakeGrammar(pattern)

    def choice(self, options: tuple[str, ...]) -> FakeGrammar:
        return FakeGrammar(options)

    def calls(self, tags: tuple[Any, ...], **frame: Any) -> FakeGrammar:
        return FakeGrammar({"tags": tags, **frame})


@dataclass(slots=True)
class FakeEngine:
    max_sequences: int = 2
    max_length: int = 5000
    step_seconds: float = 0.001
    tokenizer: FakeTokenizer = field(default_factory=FakeTokenizer)
    device: str = "cpu"
    dtype: str = "float32"
    memory_bytes: int = 123
    vocab_size: int = 0x110000
    grammars: FakeGrammars = field(default_factory=FakeGrammars)
    begun: list[Sequence] = field(default_factory=list)
    _running: dict[Sequence, Iterator[str]] = field(default_factory=dict)
    _waiting: list[Sequence] = field(default_factory=list)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    def add(self, sequence: Sequence) -> None:
        if "does not fit" in text_of(sequence):
            raise ValueError("there is no room for it")
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        self._running.pop(sequence, None)
        if sequence in self._waiting:
            self._waiting.remove(sequence)

    def step(self) -> list[Delta]:
        time.sleep(self.step_seconds)  # a real step computes for so long, and lets others run
        self._waiting.sort(key=lambda sequence: sequence.priority is Priority.BATCH)
        while self._waiting and len(self._running) < self.max_sequences:
            sequence = self._waiting.pop(0)
            self.begun.append(sequence)
            self._running[sequence] = _words(text_of(sequence))
        return [self._extend(sequence) for sequence in list(self._running)]

    def _extend(self, sequence: Sequence) -> Delta:
        sequence.tokens.append(0)
        word = next(self._running[sequence], None)
        reason = None
        if word is None:
            reason = FinishReason.STOP
        elif len(sequence.tokens) == sequence.options.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None:
            del self._running[sequence]
        return Delta(sequence, word or "", 1, reason, *_scores(sequence))

    def as_engine(self) -> "Engine":
        return cast("Engine", self)


def _scores(sequence: Sequence) -> tuple[tuple[TokenLogprob, ...], tuple[TokenLogprob, ...]]:
    """Of the token that was just generated; and, with the first, of the prompt's."""
    options, is_first = sequence.options, len(sequence.tokens) == 1
    answer = () if options.logprobs is None else (_score(0, options.logprobs),)
    if options.prompt_logprobs is None or not is_first:
        return answer, ()
    top = options.prompt_logprobs
    return answer, tuple(_score(token, top) for token in sequence.prompt)


def _score(token: int, top: int) -> TokenLogprob:
    return TokenLogprob(token, -1.0, tuple((token + rank, -1.0 - rank) for rank in range(top)))


def form_of(sequence: Sequence) -> Any:
    """What its grammar was asked to hold."""
    return sequence.options.grammar and cast("FakeGrammar", sequence.options.grammar).asked


def text_of(sequence: Sequence) -> str:
    """The prompt, as FakeTokenizer rendered it."""
    return "".join(chr(token) for token in sequence.prompt)


def _words(prompt: str) -> Iterator[str]:
    last = prompt.rstrip("\n").rpartition("\n")[2].partition(": ")[2]
    if last == "break":
        raise RuntimeError("the fake engine broke")
    if last.startswith("break after "):
        yield from last.removeprefix("break after ").split()
        raise RuntimeError("the fake engine broke")
    if last == "count":
        yield from (f"{number} " for number in count(1))
    words = last.removeprefix("say ").split(" ")
    yield from (f" {word}" if number else word for number, word in enumerate(words))
