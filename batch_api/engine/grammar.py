"""What an answer must match: JSON, a schema, a pattern, a choice, calls of tools.

llguidance compiles and follows grammars; here are its bounds, and what it is told. Nothing outside
a schema is ever fetched. Blanks are bounded, so that no answer can go on in blanks for ever.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from time import thread_time
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from batch_api.engine.errors import GrammarRefused
from batch_api.engine.json_schema import check_size, read_schema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT = 256  # compiled grammars
_MOST_SECONDS = 0.1  # for the first mask: each later one has a bound of its own
_SHOWN_CHARACTERS = 300
_LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)  # a state takes 2 kB
_JSON = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_pattern": r"\x20|\n\x20{0,20}|\n\t{0,8}",  # a space, or a line's indentation
    "coerce_one_of": False,
    "lenient": False,  # what is not understood is refused, not ignored
    "json_allowed_escapes": 'nrbtf\\"u',  # \u for control characters only: no half surrogates
    "json_allow_general_unicode_escapes": False,
}


@dataclass(frozen=True, slots=True)
class Tag:
    """JSON between two texts, as models write the call of a tool."""

    begin: str
    schema: str
    end: str


class GrammarMatcher:
    """How far one answer is. No method raises: one that can't go on is stuck."""

    def __init__(self, matcher: LLMatcher, worded_ends: list[int]) -> None:
        self._matcher = matcher
        self._worded_ends = worded_ends
        self._is_stuck = False

    @property
    def is_finished(self) -> bool:
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def is_stuck(self) -> bool:
        return self._is_stuck or self._matcher.is_error()

    def mask(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        if self._worded_ends and not self._matcher.is_accepting():
            mask = _without(mask, self._worded_ends)
            self._is_stuck = not any(mask)
        return mask

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)


class CompiledGrammar:
    def __init__(self, fresh: LLMatcher, worded_ends: list[int]) -> None:
        """`worded_ends`: end tokens that are words as well; only where it may end are they ends."""
        self._fresh = fresh
        self._worded_ends = worded_ends

    def matcher(self) -> GrammarMatcher:
        return GrammarMatcher(self._fresh.deep_copy(), self._worded_ends)


class GrammarCompiler:
    """Of one model. Any thread may call it; it takes milliseconds, for large schemas a second.

    Every method raises GrammarRefused.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        vocab_size: int,
        end_tokens: frozenset[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_tokens = end_tokens
        self._lock = Lock()
        self._vocabulary: LLTokenizer | None = None
        self._cached = lru_cache(maxsize=_KEPT)(self._try_compile)

    def json_object(self) -> CompiledGrammar:
        return self.json_schema('{"type": "object"}')

    def json_schema(self, schema: str) -> CompiledGrammar:
        """`schema`: JSON Schema, draft 2020-12. Properties come in the schema's order."""
        with _refusing():
            grammar = LLMatcher.grammar_from_json_schema(_parse(schema))
        return self._compile(grammar)

    def regex(self, pattern: str) -> CompiledGrammar:
        """The whole answer matches, whether or not the pattern has anchors."""
        check_size(pattern)
        return self._compile(LLMatcher.grammar_from_regex(pattern))

    def choice(self, options: tuple[str, ...]) -> CompiledGrammar:
        if not all(options) or not options:
            raise GrammarRefused("a choice needs options, and none may be empty")
        return self._compile_rules(["start: " + " | ".join(map(_literal, options))])

    def calls(
        self,
        tags: tuple[Tag, ...],
        *,
        least: int,
        most: int | None,
        separator: str,
        begin: str = "",
        end: str = "",
        otherwise: str | None = None,
    ) -> CompiledGrammar:
        """`begin`, then tags, any of them each time, separated by `separator`, then `end`.

        `otherwise`: a schema that an answer without calls may match instead.
        """
        if not tags or least < 0 or (most is not None and most < max(least, 1)):
            raise GrammarRefused("calls need a tag and a number of calls that can be")
        shapes = [f"schema_{number}" for number in range(len(tags))]
        for tag in tags:
            self.json_schema(tag.schema)  # alone, for its own bounds and a clear refusal
        schemas = [json.dumps(_parse(tag.schema)) for tag in tags]
        bodies = [
            f"{_literal(tag.begin)} {shape} {_literal(tag.end)}"
            for tag, shape in zip(tags, shapes, strict=True)
        ]
        called = _repeated("tag", least=least, most=most, separator=separator)
        calls = f"{_literal(begin)} {called} {_literal(end)}"
        rules = [f"start: {calls}", "tag: " + " | ".join(bodies)]
        if otherwise is not None:
            self.json_schema(otherwise)
            rules[0] = f"start: ({calls}) | otherwise"
            rules.append(f"otherwise: %json {json.dumps(_parse(otherwise))}")
        rules += [f"{shape}: %json {schema}" for shape, schema in zip(shapes, schemas, strict=True)]
        return self._compile_rules(rules)

    def _compile_rules(self, rules: list[str]) -> CompiledGrammar:
        text = "\n".join(rules)
        check_size(text)
        return self._compile(LLMatcher.grammar_from_lark(text))

    def _compile(self, grammar: str) -> CompiledGrammar:
        compiled = self._cached(grammar)
        if isinstance(compiled, str):
            raise GrammarRefused(compiled)
        return compiled

    def _try_compile(self, grammar: str) -> CompiledGrammar | str:
        """Or why not, in a sentence; that is kept too."""
        words = self._words()
        matcher = LLMatcher(words, grammar, limits=_LIMITS, log_level=0)
        if not matcher.is_error():
            start = thread_time()
            matcher.compute_bitmask()
            if thread_time() - start > _MOST_SECONDS:
                return "the grammar is too complex to follow"
        if matcher.get_error().startswith("NoExtensionBias"):
            return "nothing that this model can write matches it"
        if matcher.is_error():
            return _sentence(matcher.get_error())
        worded = [token for token in words.eos_tokens if not words.is_special_token(token)]
        return CompiledGrammar(matcher, worded)

    def _words(self) -> LLTokenizer:
        """The vocabulary as llguidance reads it: half a second for 50,000 tokens, once."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = self._read_vocabulary()
            return self._vocabulary

    def _read_vocabulary(self) -> LLTokenizer:
        if not self._end_tokens:
            raise GrammarRefused("this model has no end token, so no answer could end")
        backend: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise GrammarRefused("this model's tokenizer is none that grammars can be used with")
        backend = copy(backend)
        backend.no_padding()
        backend.no_truncation()
        size = max(self._vocab_size, len(self._tokenizer))
        with _refusing():
            return LLTokenizer(backend.to_str(), n_vocab=size, eos_token=sorted(self._end_tokens))


def _parse(text: str) -> dict[str, Any]:
    """The schema, with our bounds in it whatever it says itself."""
    return read_schema(text) | {"x-guidance": _JSON}


def _repeated(rule: str, *, least: int, most: int | None, separator: str) -> str:
    more = ""
    if most != 1:  # there is no repetition of nothing
        bounds = f"{max(0, least - 1)},{'' if most is None else most - 1}"
        more = f" ({_literal(separator)} {rule}){{{bounds}}}"
    return f"({rule}{more})" + ("" if least else "?")


def _without(mask: bytes, tokens: list[int]) -> bytes:
    left = bytearray(mask)
    for token in tokens:
        left[token // 8] &= ~(1 << token % 8)
    return bytes(left)


def _literal(text: str) -> str:
    """As a rule writes it; nothing for an empty one."""
    return json.dumps(text) if text else ""


def _sentence(error: str) -> str:
    return " ".join(error.removesuffix("<non-verbose/>").split())[:_SHOWN_CHARACTERS]


@contextmanager
def _refusing() -> Iterator[None]:
    """What json and llguidance raise for what they can't read."""
    try:
        yield
    except GrammarRefused:
        raise
    except (ValueError, RecursionError) as error:
        raise GrammarRefused(_sentence(str(error))) from error
