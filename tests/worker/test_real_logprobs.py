"""Probabilities and prompts as tokens, over the SDK, with the bundled model."""

import math
from typing import Any

import pytest
from openai import OpenAI
from transformers import AutoTokenizer

from batch_api.settings import DEMO_MODEL, DEMO_MODEL_NAME

pytestmark = pytest.mark.slow  # a real worker

NAME = DEMO_MODEL_NAME
PROMPT = "<|user|>What is 2+2?<|end|><|assistant|>"
COUNT: Any = [{"role": "user", "content": "Count to 12."}]


def ask(real_client: OpenAI, **options: Any) -> Any:
    return real_client.chat.completions.create(
        **{"model": NAME, "messages": COUNT, "temperature": 0, "logprobs": True, **options}
    )


def complete(real_client: OpenAI, **options: Any) -> Any:
    return real_client.completions.create(
        **{"model": NAME, "prompt": PROMPT, "temperature": 0, **options}
    )


def test_each_token_has_its_text_bytes_and_likeliest_alternatives(real_client: OpenAI) -> None:
    (choice,) = ask(real_client, top_logprobs=2).choices

    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    for token in tokens:
        assert token.token.encode() == bytes(token.bytes)
        first, second = token.top_logprobs
        assert 0 >= first.logprob >= second.logprob
        assert (token.token, token.logprob) == (first.token, first.logprob)
        assert math.exp(first.logprob) + math.exp(second.logprob) <= 1.0001


def test_without_alternatives_their_lists_are_empty(real_client: OpenAI) -> None:
    (choice,) = ask(real_client).choices

    assert {tuple(token.top_logprobs) for token in choice.logprobs.content} == {()}


def test_streamed_logprobs_are_those_of_the_whole_answer(real_client: OpenAI) -> None:
    (whole,) = ask(real_client, top_logprobs=1).choices

    chunks = [chunk.choices[0] for chunk in ask(real_client, top_logprobs=1, stream=True)]

    assert chunks[0].logprobs is None
    content = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content]
    assert [token.token for token in content] == [token.token for token in whole.logprobs.content]
    for streamed, told in zip(content, whole.logprobs.content, strict=True):
        assert streamed.logprob == pytest.approx(told.logprob, abs=1e-4)


def test_parts_of_a_character_have_their_exact_bytes(real_client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Repeat the word übergröße."}]
    bias = dict.fromkeys(_byte_tokens("é"), 50)

    (choice,) = ask(real_client, messages=messages, logit_bias=bias, max_tokens=4).choices

    tokens = choice.logprobs.content
    assert {bytes(token.bytes) for token in tokens} <= {b"\xc3", b"\xa9"}
    assert {token.token for token in tokens} <= {"bytes:\\xc3", "bytes:\\xa9"}


def _byte_tokens(text: str) -> list[str]:
    return [str(token) for token in AutoTokenizer.from_pretrained(DEMO_MODEL).encode(text)]


def test_a_bias_forbids_a_token(real_client: OpenAI) -> None:
    (one,) = AutoTokenizer.from_pretrained(DEMO_MODEL).encode("1")

    (choice,) = ask(real_client, logit_bias={str(one): -100}).choices

    assert "1" not in choice.message.content


def test_a_completion_s_logprobs_are_lists_side_by_side(real_client: OpenAI) -> None:
    (choice,) = complete(real_client, logprobs=2).choices

    told = choice.logprobs
    assert choice.text == "".join(told.tokens) == "4"
    assert told.text_offset == [0]
    assert told.token_logprobs[0] == pytest.approx(max(told.top_logprobs[0].values()))
    assert len(told.top_logprobs[0]) == 2


def test_an_echo_with_logprobs_scores_the_prompt(real_client: OpenAI) -> None:
    (choice,) = complete(real_client, logprobs=1, echo=True, max_tokens=0).choices

    told = choice.logprobs
    assert choice.text == "".join(told.tokens) == PROMPT
    assert choice.finish_reason == "length"
    assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
    assert all(logprob <= 0 for logprob in told.token_logprobs[1:])
    assert len(told.tokens) == len(AutoTokenizer.from_pretrained(DEMO_MODEL).encode(PROMPT))


@pytest.mark.parametrize("text", ["a 😀😀 hello é 漢 world", PROMPT, "<|end|>é<|end|>\n😀b"])
@pytest.mark.parametrize("as_tokens", [False, True])
def test_each_token_s_offset_is_where_its_text_begins(
    real_client: OpenAI, text: str, as_tokens: bool
) -> None:
    tokens = AutoTokenizer.from_pretrained(DEMO_MODEL).encode(text)
    prompt = tokens if as_tokens else text

    (choice,) = complete(real_client, prompt=prompt, logprobs=1, echo=True, max_tokens=3).choices

    told = choice.logprobs
    whole = [not token.startswith("bytes:") for token in told.tokens]
    for token, offset, is_whole in zip(told.tokens, told.text_offset, whole, strict=True):
        assert choice.text.startswith(token if is_whole else "", offset)
    parts = [at for at, is_whole in zip(told.text_offset, whole, strict=True) if not is_whole]
    assert all(not choice.text[at].isascii() for at in parts if at < len(text))


def test_an_answer_is_scored_alike_as_an_answer_and_as_a_prompt(real_client: OpenAI) -> None:
    (answered,) = complete(real_client, logprobs=0, max_tokens=1).choices

    (scored,) = complete(
        real_client, prompt=PROMPT + answered.text, logprobs=0, echo=True, max_tokens=0
    ).choices

    (logprob,) = answered.logprobs.token_logprobs
    assert scored.logprobs.token_logprobs[-1] == pytest.approx(logprob, abs=1e-4)


def test_an_echo_with_an_answer_has_both(real_client: OpenAI) -> None:
    (choice,) = complete(real_client, logprobs=0, echo=True).choices
    chunks = [
        chunk.choices[0] for chunk in complete(real_client, logprobs=0, echo=True, stream=True)
    ]

    assert choice.text == "".join(choice.logprobs.tokens) == f"{PROMPT}4"
    assert "".join(chunk.text for chunk in chunks) == choice.text
    assert [token for chunk in chunks for token in chunk.logprobs.tokens] == choice.logprobs.tokens


def test_no_tokens_are_generated_if_none_are_wanted(real_client: OpenAI) -> None:
    answer = complete(real_client, max_tokens=0)

    assert (answer.choices[0].text, answer.usage.completion_tokens) == ("", 0)


def test_the_best_of_several_is_the_likeliest(real_client: OpenAI) -> None:
    options: dict[str, Any] = {"temperature": 2, "seed": 3, "max_tokens": 8, "logprobs": 0}
    options |= {"prompt": "<|user|>", "extra_body": {"ignore_eos": True}}

    def score(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs) / len(choice.logprobs.tokens))

    (best,) = complete(real_client, best_of=4, **options).choices
    every = complete(real_client, n=4, **options).choices

    assert score(best) == pytest.approx(max(map(score, every)), abs=1e-4)
    assert len({choice.text for choice in every}) > 1


def test_a_response_tells_logprobs_if_they_are_included(real_client: OpenAI) -> None:
    answer: Any = real_client.responses.create(
        model=NAME,
        input="Count to 12.",
        temperature=0,
        top_logprobs=2,
        include=["message.output_text.logprobs"],
    )

    text = answer.output[0].content[0]
    assert "".join(token.token for token in text.logprobs) == text.text
    assert {len(token.top_logprobs) for token in text.logprobs} == {2}
