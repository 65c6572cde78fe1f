"""Grammars in the engine: random weights, every kind of tokenizer, crowds."""

import json
from pathlib import Path
from random import Random
from shutil import copytree
from typing import Any

import pytest

from batch_api.engine.engine import Engine
from batch_api.engine.grammar import Tag
from batch_api.engine.sequence import FinishReason, Grammar, SamplingOptions, Sequence
from tests.engine import tokenizers
from tests.engine.conftest import MakeModel, finish, greedy

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "mood": {"enum": ["good", "bad", None]},
        "marks": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "mood", "marks"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece", "demo"])
def any_engine(
    request: pytest.FixtureRequest, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Engine:
    """Random weights, more tokens than the tokenizer has, and the tokenizer named."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    copytree(make_model("llama", vocab_size=700), folder)
    tokenizers.make(request.param).save_pretrained(folder)
    return Engine.load(str(folder), dtype="float32", max_sequences=64, max_length=250)


@pytest.fixture(scope="module")
def one_engine(llama: Path) -> Engine:
    return Engine.load(str(llama), dtype="float32", max_sequences=64, max_length=250)


def held(grammar: Grammar | None, seed: int, **options: Any) -> Sequence:
    asked = {"max_tokens": 200, "seed": seed, "grammar": grammar, "top_k": 30} | options
    return Sequence([seed + 1, 7], SamplingOptions(**asked))


def matches(text: str) -> bool:
    found = json.loads(text)
    return (
        list(found) == ["name", "mood", "marks"]
        and len(found["name"]) <= 6
        and found["mood"] in ("good", "bad", None)
        and 1 <= len(found["marks"]) <= 3
        and set(found["marks"]) <= {1, 2, 3}
    )


def test_every_answer_matches_its_schema_on_random_weights(any_engine: Engine) -> None:
    grammar = any_engine.grammars.json_schema(json.dumps(SCHEMA))
    sequences = [held(grammar, seed, temperature=seed % 3) for seed in range(24)]

    texts = finish(any_engine, *sequences)

    assert {each.finish_reason for each in sequences} == {FinishReason.STOP}
    assert [text for text in texts.values() if not matches(text)] == []
    assert len(set(texts.values())) > 12


def test_every_kind_of_grammar_holds_in_one_step_beside_free_answers(any_engine: Engine) -> None:
    grammars = any_engine.grammars
    calls = grammars.calls(
        (Tag("<f>", '{"enum": [1, 2]}', "</f>"),), least=1, most=2, separator=" "
    )
    checks: list[tuple[Grammar, Any]] = [
        (grammars.choice(("left", "right")), {"left", "right"}),
        (grammars.regex("[ab]{2}"), {"aa", "ab", "ba", "bb"}),
        (calls, {f"<f>{a}</f>{b}" for a in "12" for b in ("", " <f>1</f>", " <f>2</f>")}),
    ]
    sequences = [(held(grammar, seed), right) for seed in range(6) for grammar, right in checks]
    free = [held(None, seed, max_tokens=9) for seed in range(10)]

    texts = finish(any_engine, *free, *(each for each, _ in sequences))

    assert [texts[each] for each, right in sequences if texts[each] not in right] == []


def test_an_object_that_is_cut_is_said_to_be_cut(any_engine: Engine) -> None:
    grammar = any_engine.grammars.json_object()
    sequences = [held(grammar, seed, max_tokens=60) for seed in range(24)]

    texts = finish(any_engine, *sequences)

    for each in sequences:
        if each.finish_reason is FinishReason.STOP:
            assert isinstance(json.loads(texts[each]), dict)
        else:
            assert (each.finish_reason, len(each.tokens)) == (FinishReason.LENGTH, 60)


@pytest.mark.slow
def test_64_at_once_some_held_to_grammars_get_the_answers_they_get_one_by_one(
    one_engine: Engine,
) -> None:
    grammars = [
        None,
        one_engine.grammars.json_schema(json.dumps(SCHEMA)),
        one_engine.grammars.choice(("one", "two", "three")),
        one_engine.grammars.json_object(),
    ]
    random = Random(2)
    asked: list[dict[str, Any]] = [
        {
            "grammar": grammars[seed % 4],
            "max_tokens": random.randint(5, 40),
            "temperature": random.choice([0.0, 1.0]),
            "frequency_penalty": random.choice([0.0, 0.5]),
            "logprobs": random.choice([None, 2]),
            "min_tokens": random.choice([0, 4]),
        }
        for seed in range(64)
    ]
    crowd = [held(seed=seed, **options) for seed, options in enumerate(asked)]

    texts = finish(one_engine, *crowd)

    for seed, (sequence, options) in enumerate(zip(crowd, asked, strict=True)):
        alone = held(seed=seed, **options)
        assert texts[sequence] == finish(one_engine, alone)[alone]
        assert (sequence.tokens, sequence.finish_reason) == (alone.tokens, alone.finish_reason)


def test_no_end_before_min_tokens_but_where_the_grammar_has_nothing_else(
    one_engine: Engine,
) -> None:
    grammar = one_engine.grammars.regex("a{1,12}")
    ends = {0: 100.0}  # so that an answer ends as soon as it may
    texts = {
        least: finish(one_engine, sequence)[sequence]
        for least in (0, 5, 60)
        for sequence in [held(grammar, 1, min_tokens=least, logit_bias=ends)]
    }

    assert texts == {0: "a", 5: "aaaaa", 60: "a" * 12}


def test_a_stop_string_and_a_stop_token_end_a_held_answer_too(one_engine: Engine) -> None:
    grammar = one_engine.grammars.regex("abcdef")
    (token,) = one_engine.tokenizer.encode("d")
    by_string, by_token = held(grammar, 1, stop=("d",)), held(grammar, 1, stop_tokens={token})

    texts = finish(one_engine, by_string, by_token)

    assert (texts[by_string], texts[by_token]) == ("abc", "abc")
    assert by_string.finish_reason is by_token.finish_reason is FinishReason.STOP


def test_a_bias_cannot_force_what_the_grammar_forbids(one_engine: Engine) -> None:
    (token,) = one_engine.tokenizer.encode("x")
    sequence = held(one_engine.grammars.choice(("yes", "no")), 1, logit_bias={token: 100.0})

    assert finish(one_engine, sequence)[sequence] in ("yes", "no")


def test_logprobs_of_a_held_answer_are_the_models_own(one_engine: Engine) -> None:
    sequence = held(one_engine.grammars.choice(("yes",)), 1, temperature=0, logprobs=1)
    free = greedy(sequence.prompt, 1, logprobs=1)

    (first, *_), (unheld, *_) = (
        [each for delta in steps for each in delta]
        for steps in _logprobs(one_engine, sequence, free)
    )

    assert first.token == one_engine.tokenizer.encode("yes")[0] != unheld.token
    assert first.top[0] == (unheld.top[0][0], pytest.approx(unheld.top[0][1], abs=1e-3))
    assert first.logprob < unheld.logprob


def _logprobs(engine: Engine, *sequences: Sequence) -> list[list[Any]]:
    found: dict[Sequence, list[Any]] = {each: [] for each in sequences}
    for each in sequences:
        engine.add(each)
    while engine.has_work:
        for delta in engine.step():
            found[delta.sequence].append(delta.logprobs)
    return list(found.values())


def test_an_answer_that_the_vocabulary_cannot_go_on_with_is_cut(
    llama: Path, tmp_path: Path
) -> None:
    copytree(llama, tmp_path / "model")
    tokenizers.make_of_words(["a", "b"]).save_pretrained(tmp_path / "model")
    engine = Engine.load(str(tmp_path / "model"), dtype="float32", max_sequences=2, max_length=50)
    sequence = held(engine.grammars.regex("ab*c"), 1, max_tokens=5, logit_bias={1: 50.0})
    stuck = held(engine.grammars.regex("ac"), 1, stop=("ab",))

    texts = finish(engine, sequence, stuck)

    assert (texts[sequence], sequence.finish_reason) == ("abbbb", FinishReason.LENGTH)
    assert (texts[stuck], stuck.finish_reason) == ("a", FinishReason.LENGTH)
    assert len(stuck.tokens) == 1
