import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from batch_api.engine.detokenizer import AnswerText, Detokenizer, StopStrings
from tests.engine.conftest import make_tokenizer

TOKENIZER = make_tokenizer()


def pieces(text: str) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER)
    return [*map(detokenizer.add, TOKENIZER.encode(text)), detokenizer.flush()]


@given(st.text(max_size=60))
def test_the_pieces_together_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=60))
def test_no_piece_is_half_a_character(text: str) -> None:
    assert not any("\ufffd" in piece for piece in pieces(text))


@given(st.lists(st.integers(1, 256), max_size=40))
def test_bytes_that_are_no_text_come_out_as_the_tokenizer_shows_them(tokens: list[int]) -> None:
    detokenizer = Detokenizer(TOKENIZER)

    shown = "".join([*map(detokenizer.add, tokens), detokenizer.flush()])

    assert shown.replace("\ufffd", "") == str(TOKENIZER.decode(tokens)).replace("\ufffd", "")


def test_special_tokens_are_hidden_but_for_those_that_are_to_show() -> None:
    special, *_ = TOKENIZER.all_special_ids
    tokens = [*TOKENIZER.encode("a"), special, *TOKENIZER.encode("b")]

    hiding, showing = Detokenizer(TOKENIZER), Detokenizer(TOKENIZER, shown=frozenset({special}))

    assert "".join(map(hiding.add, tokens)) == "ab"
    assert "".join(map(showing.add, tokens)) == f"a{TOKENIZER.all_special_tokens[0]}b"


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    detokenizer = Detokenizer(TOKENIZER)
    (first, *_) = TOKENIZER.encode("東")

    assert detokenizer.add(first) == ""
    assert detokenizer.flush() == "\ufffd"


def test_words_keep_their_spaces_with_a_sentencepiece_decoder() -> None:
    vocabulary = {"<unk>": 0, "▁the": 1, "▁cat": 2, "s": 3, "<0xE2>": 4, "<0x82>": 5, "<0xAC>": 6}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    fast: Any = PreTrainedTokenizerFast
    detokenizer = Detokenizer(fast(tokenizer_object=tokenizer))

    shown = [detokenizer.add(token) for token in (1, 2, 3, 4, 5, 6, 1)]

    assert shown == ["the", " cat", "s", "", "", "€", " the"]


def test_special_tokens_do_not_show() -> None:
    answer = AnswerText(TOKENIZER, ())
    tokens = [*TOKENIZER.encode("a"), 0, *TOKENIZER.encode("b")]

    assert "".join([*map(answer.add, tokens), answer.flush()]) == "ab"


def test_the_cost_of_a_token_does_not_grow_with_the_answer() -> None:
    answer = AnswerText(TOKENIZER, ("never",))
    tokens = TOKENIZER.encode("the quick brown fox ") * 200

    def seconds() -> float:
        start = time.process_time()
        for token in tokens:
            answer.add(token)
        return time.process_time() - start

    first = min(seconds() for _ in range(2))
    assert min(seconds() for _ in range(3)) < 3 * first


@pytest.mark.parametrize(
    ("chunks", "stops", "shown"),
    [
        (["one END two"], ("END",), ["one "]),
        (["one E", "ND two"], ("END",), ["one ", ""]),
        (["one E", "N", "x"], ("END",), ["one ", "", "ENx"]),
        (["aab", "aac"], ("aabaac",), ["", ""]),
        (["aaba", "abaac"], ("abaac",), ["a", "aba"]),
        (["stop"], ("top", "st"), [""]),
        (["abc"], ("abcd", "c"), ["ab"]),
        (["anything"], (), ["anything"]),
        (["anything"], ("",), ["anything"]),
    ],
)
def test_stop_strings_cut_the_text(
    chunks: list[str], stops: tuple[str, ...], shown: list[str]
) -> None:
    found = StopStrings(stops)

    assert [found.add(chunk) for chunk in chunks] == shown


@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
    sizes=st.lists(st.integers(1, 4), min_size=30, max_size=30),
)
def test_a_stop_string_never_leaks_wherever_the_text_is_split(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    found = StopStrings(tuple(stops))
    shown, at = "", 0
    for size in sizes:
        shown += found.add(text[at : at + size])
        at += size
        assert not any(stop in shown for stop in stops)
        if found.is_found:
            break
    shown += found.flush()

    assert text.startswith(shown)
    assert found.is_found == any(stop in text for stop in stops)
    assert found.is_found or shown == text
