"""Calls in the text of an answer, in every family's syntax, however the text is cut."""

import json

import pytest

from batch_api.worker.tool_syntax.families import (
    Hermes,
    Llama,
    Mistral,
    NewerMistral,
    syntax_of,
)
from batch_api.worker.tool_syntax.pieces import Arguments, CallBegins, Piece, Syntax, Text

NAMES = frozenset({"f", "g"})
X = '{"x": "a}\\"] ]", "y": [1, {"z": 2}]}'
F, G = ("f", X), ("g", "{}")

Read = list[str | tuple[str, str]]


def read(syntax: Syntax, text: str, size: int) -> Read:
    parser = syntax.parser(NAMES)
    pieces: list[Piece] = []
    for start in range(0, len(text), size):
        pieces += parser.add(text[start : start + size])
    return joined(pieces + parser.finish())


def joined(pieces: list[Piece]) -> Read:
    parts: Read = []
    for piece in pieces:
        last = parts[-1] if parts else None
        match piece:
            case CallBegins(name):
                parts.append((name, ""))
            case Arguments(more):
                assert isinstance(last, tuple)
                parts[-1] = (last[0], last[1] + more)
            case Text(more) if isinstance(last, str):
                parts[-1] = last + more
            case Text(text):
                parts.append(text)
    return parts


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("syntax", "text", "parts"),
    [
        (Hermes(), f'<tool_call>\n{{"name": "f", "arguments": {X}}}\n</tool_call>', [F]),
        (
            Hermes(),
            f'Hi.\n<tool_call>{{"name": "f", "arguments": {X}}}</tool_call>\n'
            '<tool_call>{"name": "g", "arguments": {}}</tool_call>\n',
            ["Hi.", F, G],
        ),
        (Hermes(), '<tool_call>{"arguments": {}, "name": "g"}</tool_call> Ok', [G, " Ok"]),
        (Hermes(), '<tool_call>{"name": "g"}</tool_call>', [G]),
        (Hermes(), '<tool_call>{"name": "g", "arguments": "{}"}</tool_call>', [G]),
        (
            Llama(),
            f'{{"name": "f", "parameters": {X}}}; {{"name": "g", "parameters": {{}}}}',
            [F, G],
        ),
        (Llama(), '<|python_tag|>{"name": "g", "parameters": {}}', [G]),
        (Llama(), '{"type": "function", "name": "g", "parameters": {}}', [G]),
        (
            Mistral(),
            f'Hi [TOOL_CALLS] [{{"name": "f", "arguments": {X}}}, '
            '{"name": "g", "arguments": {}}]',
            ["Hi", F, G],
        ),
        (NewerMistral(), f"[TOOL_CALLS]f[ARGS]{X}[TOOL_CALLS]g[CALL_ID]a1[ARGS]{{}}", [F, G]),
        (NewerMistral(), f"[TOOL_CALLS]f{X}", [F]),
    ],
)
def test_calls_are_read_wherever_the_text_is_cut(
    syntax: Syntax, text: str, parts: Read, size: int
) -> None:
    assert read(syntax, text, size) == parts


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        (Hermes(), "plain text "),
        (Hermes(), "a <tool_call>no</tool_call> b"),
        (Hermes(), " x <tool_"),
        (Hermes(), '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        (Hermes(), '<tool_call>{"name": f}</tool_call>'),
        (Hermes(), '<tool_call>{"na'),
        (Llama(), '{"answer": 4}'),
        (Llama(), '{"ans'),
        (Llama(), 'See {"name": "f", "parameters": {}}'),
        (Llama(), '{"name": "unknown", "parameters": {}}'),
        (Mistral(), "[1, 2]"),
        (Mistral(), '[TOOL_CALLS] [{"name": "unknown"}]'),
        (NewerMistral(), "[TOOL_CALLS]unknown[ARGS]{}"),
    ],
)
def test_what_is_no_call_of_a_known_function_stays_text(
    syntax: Syntax, text: str, size: int
) -> None:
    assert read(syntax, text, size) == [text]


@pytest.mark.parametrize("syntax", [Hermes(), Llama(), Mistral(), NewerMistral()])
def test_an_answer_that_ends_in_a_call_keeps_what_there_is(syntax: Syntax) -> None:
    begin, _ = syntax.around("f")

    assert read(syntax, f'{syntax.frame.begin}{begin}{{"x": "cut', 4) == [("f", '{"x": "cut')]


@pytest.mark.parametrize("syntax", [Hermes(), Llama(), Mistral(), NewerMistral()])
def test_calls_written_as_a_held_answer_must_are_read_back(syntax: Syntax) -> None:
    frame = syntax.frame
    calls = [arguments.join(syntax.around(name)) for name, arguments in (F, G)]

    assert read(syntax, frame.begin + frame.separator.join(calls) + frame.end, 3) == [F, G]


def test_arguments_come_while_they_are_written() -> None:
    parser = Hermes().parser(NAMES)

    assert parser.add('<tool_call>{"name": "f", "argu') == []
    assert parser.add('ments": {"x"') == [CallBegins("f"), Arguments('{"x"')]
    assert parser.add(": 12") == [Arguments(": 12")]
    assert parser.add("}}") == [Arguments("}")]


def test_text_comes_at_once_but_for_what_may_begin_a_call() -> None:
    parser = Hermes().parser(NAMES)

    assert parser.add("one two ") == [Text("one two")]
    assert parser.add("three <tool") == [Text(" three")]
    assert parser.add("box>") == [Text(" <toolbox>")]


@pytest.mark.parametrize(
    ("template", "syntax"),
    [
        ("{{ tools }} <tool_call></tool_call>", Hermes),
        ("ipython '\"parameters\": '", Llama),
        ("<|python_tag|>", Llama),
        ("[TOOL_CALLS] [", Mistral),
        ("[TOOL_CALLS]name[ARGS]", NewerMistral),
        ("<tool_call><function=f>", type(None)),
        ("{{ messages }}", type(None)),
    ],
)
def test_the_syntax_is_the_one_that_the_template_teaches(template: str, syntax: type) -> None:
    assert type(syntax_of(template)) is syntax


def test_mistral_s_ids_have_nine_letters_and_digits() -> None:
    mistral = Mistral()

    known = mistral.known_id("call_0123456789")
    assert {len(id) for id in (known, mistral.call_id())} == {9}
    assert known.isalnum()
    assert known == mistral.known_id("call_0123456789") != mistral.known_id("call_x")
    assert mistral.known_id("abcdefgh9") == "abcdefgh9"


def test_a_very_long_call_takes_time_in_proportion_to_its_length() -> None:
    arguments = json.dumps({"text": '"\\{}' * 50_000})

    (call,) = read(Hermes(), arguments.join(Hermes().around("f")), 4)

    assert call == ("f", arguments)
