"""Whatever is drawn of what a grammar's masks allow, is what was asked for; no model here."""

import json
import socket
from random import Random
from threading import Thread
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from batch_api.engine.errors import GrammarRefused
from batch_api.engine.grammar import CompiledGrammar, GrammarCompiler, Tag
from tests.engine import tokenizers

VOCABULARY = 640
TOKENIZERS = {name: tokenizers.make(name) for name in ("byte-level", "sentencepiece", "demo")}
ENDS = {"byte-level": {0}, "sentencepiece": {0}, "demo": {0, 3}}
COMPILERS = {
    name: GrammarCompiler(tokenizer, VOCABULARY, frozenset(ENDS[name]))
    for name, tokenizer in TOKENIZERS.items()
}
CLOSING = set('"}]')
COMPILER = COMPILERS["demo"]
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def allowed(mask: bytes) -> list[int]:
    return [token for token in range(len(mask) * 8) if mask[token // 8] >> token % 8 & 1]


def draw(name: str, grammar: CompiledGrammar, seed: int, *, most: int = 600) -> str | None:
    """An answer of tokens drawn from what is allowed, some more for what closes; None if cut."""
    tokenizer, random, tokens = TOKENIZERS[name], Random(seed), list[int]()
    matcher = grammar.matcher()
    for _ in range(most):
        choices = allowed(matcher.mask())
        assert not matcher.is_stuck
        closing = [token for token in choices if CLOSING & set(tokenizer.decode([token]))]
        token = random.choice(closing if closing and random.random() < 0.3 else choices)
        if token in ENDS[name]:
            return str(tokenizer.decode(tokens, skip_special_tokens=True))
        tokens.append(token)
        matcher.accept(token)
    return None


def answers(name: str, grammar: CompiledGrammar, count: int = 12) -> list[str]:
    drawn = [draw(name, grammar, seed) for seed in range(count)]
    whole = [each for each in drawn if each is not None]
    assert len(whole) > count / 2
    return whole


def takes(grammar: CompiledGrammar, text: str, name: str = "demo") -> bool:
    """Whether this may be an answer."""
    matcher = grammar.matcher()
    for token in TOKENIZERS[name].encode(text, add_special_tokens=False):
        if token not in allowed(matcher.mask()):
            return False
        matcher.accept(token)
    return bool(ENDS[name] & set(allowed(matcher.mask())))


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")
    street: str
    zip: Annotated[str, Field(pattern="^[0-9]{5}$")]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(min_length=1, max_length=8)]


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(max_length=20)]
    age: Annotated[int, Field(ge=0, le=150)]
    address: Address | None
    tags: Annotated[list[str], Field(max_length=3)]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    score: float
    moods: dict[str, bool]


@every_tokenizer
def test_whatever_is_drawn_is_an_object(name: str) -> None:
    for text in answers(name, COMPILERS[name].json_object()):
        assert isinstance(json.loads(text, strict=True), dict)


@every_tokenizer
def test_whatever_is_drawn_matches_its_schema(name: str) -> None:
    grammar = COMPILERS[name].json_schema(json.dumps(Person.model_json_schema()))

    people = [Person.model_validate_json(text) for text in answers(name, grammar)]

    assert len({person.model_dump_json() for person in people}) > 3


@every_tokenizer
def test_whatever_is_drawn_is_one_of_the_choices(name: str) -> None:
    options = ("yes", "no", "no way", 'a "quoted" \\ one\n', "東京", "\u007f\u2028🙂")
    grammar = COMPILERS[name].choice(options)

    drawn = [draw(name, grammar, seed) for seed in range(60)]

    assert set(drawn) == set(options)


@every_tokenizer
def test_whatever_is_drawn_matches_its_pattern(name: str) -> None:
    grammar = COMPILERS[name].regex(r"^[0-9]{4}-(0[1-9]|1[0-2]) (AM|PM)$")

    for text in answers(name, grammar):
        year, rest = text.split("-")
        month, half = rest.split(" ")
        assert (len(year), 1 <= int(month) <= 12, half in ("AM", "PM")) == (4, True, True)


@every_tokenizer
def test_calls_come_in_the_familys_syntax_as_often_as_asked(name: str) -> None:
    tags = (
        Tag('<tool>{"name": "sum", "arguments": ', '{"type": "integer"}', "}</tool>"),
        Tag('<tool>{"name": "say", "arguments": ', '{"enum": ["a", "b"]}', "}</tool>"),
    )
    grammar = COMPILERS[name].calls(
        tags, least=1, most=3, separator="\n", begin="<tools>", end="</tools>"
    )

    counts = set()
    for text in answers(name, grammar, 20):
        inside = text.removeprefix("<tools>").removesuffix("</tools>")
        calls = [json.loads(each[6:-7]) for each in inside.split("\n")]
        assert text == f"<tools>{inside}</tools>"
        for call in calls:
            valid = isinstance(call["arguments"], int) or call["arguments"] in ("a", "b")
            assert valid
        counts.add(len(calls))
    assert {1, 2} <= counts <= {1, 2, 3}


CALL = Tag("[", "true", "]")


@pytest.mark.parametrize(
    ("least", "most", "taken"),
    [
        (0, 1, {0, 1}),
        (0, None, {0, 1, 2, 3, 4}),
        (1, 1, {1}),
        (2, 3, {2, 3}),
        (3, None, {3, 4}),
    ],
)
def test_the_number_of_calls_is_bounded_on_both_sides(
    least: int, most: int | None, taken: set[int]
) -> None:
    grammar = COMPILER.calls((CALL,), least=least, most=most, separator=",")

    found = {count for count in range(5) if takes(grammar, ",".join(["[1]"] * count))}

    assert found == taken


def test_instead_of_calls_an_answer_may_match_another_schema() -> None:
    grammar = COMPILER.calls(
        (CALL,), least=1, most=None, separator=",", otherwise='{"enum": ["no"]}'
    )

    assert all(takes(grammar, text) for text in ("[1]", "[1],[1]", '"no"'))
    assert not any(takes(grammar, text) for text in ('"yes"', '[1],"no"', '"no",[1]'))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
def test_a_choice_takes_its_options_and_nothing_else(options: list[str]) -> None:
    grammar = COMPILER.choice(tuple(options))

    assert all(takes(grammar, option) for option in options)
    assert not takes(grammar, max(options, key=len) + "x")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXTS, JSON_VALUES, max_size=3), st.sampled_from([None, 2, 4]))
def test_any_object_is_taken_compact_or_indented(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)

    assert takes(COMPILER.json_object(), text)


def test_blanks_are_bounded_everywhere() -> None:
    for blanks in ("  ", "\n\n", "\n" + " " * 21, "\t", "\r\n"):
        for text in (f"{{{blanks}}}", f'{{"a"{blanks}:1}}', f'{{"a":{blanks}1}}', f"{blanks}{{}}"):
            assert not takes(COMPILER.json_object(), text)
    assert takes(COMPILER.json_object(), '{ "a" : [ 1 ,\n                    2 ] }')


def test_a_schema_cannot_loosen_the_bounds() -> None:
    loose = {"whitespace_pattern": " +", "lenient": True}
    schema = {"type": "object", "x-guidance": loose, "additionalProperties": {"not": {}}}

    with pytest.raises(GrammarRefused, match="not"):
        COMPILER.json_schema(json.dumps(schema))
    del schema["additionalProperties"]
    assert not takes(COMPILER.json_schema(json.dumps(schema)), "{    }")


def test_no_string_has_half_a_surrogate_or_a_second_spelling() -> None:
    grammar = COMPILER.json_schema('{"type": "string"}')

    assert takes(grammar, json.dumps("é\n\u0000", ensure_ascii=False))
    assert not takes(grammar, '"\\ud800"')
    assert not takes(grammar, '"\\u0041"')


def test_properties_come_in_the_schemas_order_and_the_optional_may_be_left_out() -> None:
    schema = {
        "type": "object",
        "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}},
        "required": ["a"],
    }
    grammar = COMPILER.json_schema(json.dumps(schema))

    assert takes(grammar, '{"b": 1, "a": 2}')
    assert takes(grammar, '{"a": 2}')
    assert not takes(grammar, '{"a": 2, "b": 1}')
    assert not takes(grammar, '{"b": 1}')


def test_the_end_may_come_exactly_where_the_grammar_may_end() -> None:
    grammar = COMPILER.choice(("no", "no way"))

    ending = {text for text in ("", "n", "no", "no ", "no w", "no way") if takes(grammar, text)}

    assert ending == {"no", "no way"}


def test_a_grammar_is_finished_when_nothing_but_the_end_may_follow() -> None:
    matcher = COMPILER.choice(("no", "no way")).matcher()
    finished = []
    for token in TOKENIZERS["demo"].encode("no way"):
        finished.append(matcher.is_finished)
        matcher.accept(token)

    assert not any(finished)
    assert matcher.is_finished
    assert allowed(matcher.mask()) == sorted(ENDS["demo"])


def test_an_end_token_that_is_a_word_too_is_taken_for_an_end_only() -> None:
    tokenizer = TOKENIZERS["demo"]
    (word,) = tokenizer.encode("b")
    ends = {3, word}
    matcher = GrammarCompiler(tokenizer, VOCABULARY, frozenset(ends)).regex("[ab]{2}").matcher()
    seen = []
    for _ in range(3):
        seen.append(ends & set(allowed(matcher.mask())))
        matcher.accept(tokenizer.encode("a")[0])

    assert seen == [set(), set(), ends]


def test_an_answer_that_only_an_end_tokens_word_could_go_on_with_is_stuck() -> None:
    tokenizer = TOKENIZERS["demo"]
    (word,) = tokenizer.encode("b")
    matcher = GrammarCompiler(tokenizer, VOCABULARY, frozenset({3, word})).regex("ab").matcher()
    matcher.accept(tokenizer.encode("a")[0])

    assert not any(matcher.mask())
    assert matcher.is_stuck


def test_sequences_with_one_grammar_do_not_share_how_far_they_are() -> None:
    grammar = COMPILER.regex("abc")
    first, second = grammar.matcher(), grammar.matcher()
    before = second.mask()

    first.accept(allowed(first.mask())[0])

    assert first.mask() != before == second.mask() == grammar.matcher().mask()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("{", "EOF|Expecting"),
        ("[]", "must be an object"),
        ("false", "must be an object"),
        ('{"type": "strnig"}', "strnig"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ('{"not": {"type": "string"}}', "not"),
        ('{"type": "string", "format": "colour"}', "colour"),
        ('{"type": "string", "pattern": "(?=a)"}', "look-around"),
        ('{"type": "string", "minLength": 5, "maxLength": 2}', "Unsatisfiable"),
        ('{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "oneOf"),
        ('{"type": "object", "minProperties": 2}', "minProperties"),
        ('{"$ref": "#/$defs/nowhere"}', "nowhere"),
        ('{"$ref": "#"}', "nothing that this model can write"),
        ('{"const": "' + "x" * 140_000 + '"}', "at most 131,072"),
        ('{"items":' * 65 + "{}" + "}" * 65, "nested more than 64"),
        ('{"items":' * 50_000 + "{}" + "}" * 50_000, "bytes"),
        ("[" * 3000 + "]" * 3000, "recursion"),
    ],
)
def test_what_cannot_be_held_to_is_refused_with_the_reason(schema: str, reason: str) -> None:
    with pytest.raises(GrammarRefused, match=reason) as refused:
        COMPILER.json_schema(schema)

    assert refused.value.reason
    assert len(refused.value.reason) <= 300
    with pytest.raises(GrammarRefused):
        COMPILER.calls((Tag("<", schema, ">"),), least=1, most=1, separator="")


def test_a_schema_that_would_hold_up_everyone_is_refused() -> None:
    either = [
        {"anyOf": [{"type": "object", "properties": {f"{key}{number}": {}}} for key in "ab"]}
        for number in range(12)
    ]

    with pytest.raises(GrammarRefused, match=r"too (complex|large)"):
        COMPILER.json_schema(json.dumps({"allOf": either}))


@pytest.mark.parametrize("pattern", ["(", "(?=a)a", r"(a)\1", "[b-a]", "a" * 140_000, "[^\\s\\S]"])
def test_a_pattern_that_cannot_be_followed_is_refused(pattern: str) -> None:
    with pytest.raises(GrammarRefused):
        COMPILER.regex(pattern)


@pytest.mark.parametrize("options", [(), ("",), ("a", ""), ("x" * 140_000,)])
def test_a_choice_of_nothing_is_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(GrammarRefused):
        COMPILER.choice(options)


def test_a_model_without_an_end_token_is_held_to_nothing() -> None:
    endless = GrammarCompiler(TOKENIZERS["demo"], VOCABULARY, frozenset())

    with pytest.raises(GrammarRefused, match="end token"):
        endless.json_object()


def test_no_reference_to_anything_outside_the_schema_is_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        for schema in ({"$ref": url}, {"$schema": url}, {"$id": url, "$ref": "other.json"}):
            with pytest.raises(GrammarRefused):
                COMPILER.json_schema(json.dumps(schema))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_many_threads_may_compile_at_once() -> None:
    compiler = GrammarCompiler(TOKENIZERS["demo"], VOCABULARY, frozenset({3}))
    made: list[CompiledGrammar] = []
    threads = [Thread(target=lambda: made.append(compiler.json_object())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [takes(each, '{"a": 1}') for each in made] == [True] * 8
    assert compiler.json_object() is compiler.json_object()


LISTED = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def test_an_object_that_lists_its_properties_gets_no_others() -> None:
    nested = {"type": "object", "properties": {"properties": LISTED, "rest": {"items": LISTED}}}

    for schema in (LISTED, nested):
        grammar = COMPILER.json_schema(json.dumps(schema))
        assert not takes(grammar, '{"a": 1, "b": 2}')
    assert takes(grammar, '{"properties": {"a": 1}, "rest": [{"a": 2}]}')
    assert not takes(grammar, '{"properties": {"a": 1, "b": 2}}')
    assert not takes(grammar, '{"rest": [{"a": 1, "b": 2}]}')


@pytest.mark.parametrize(
    "schema",
    [
        LISTED | {"additionalProperties": True},
        {"type": "object"},
        {"allOf": [LISTED, {"type": "object", "properties": {"b": {"type": "integer"}}}]},
        {"$defs": {"A": LISTED}, "$ref": "#/$defs/A", "properties": {"b": {"type": "integer"}}},
    ],
    ids=["open", "unlisted", "composed", "extended"],
)
def test_an_object_that_is_open_on_purpose_or_composed_stays_open(schema: dict[str, Any]) -> None:
    assert takes(COMPILER.json_schema(json.dumps(schema)), '{"a": 1, "b": 2}')
