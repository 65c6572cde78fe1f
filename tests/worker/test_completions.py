"""`/v1/completions` over the SDK, from the fake engine, which answers the last line of a prompt."""

import json
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import pytest
from openai import APIError, BadRequestError
from openai.types import Completion

from tests.worker.fake_engine import FakeEngine, FakeTokenizer, form_of, text_of
from tests.worker.serving import MODEL, Worker, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "user: say one two"


async def complete(worker: Worker, prompt: Any = PROMPT, **options: Any) -> Any:
    return await worker.client.completions.create(model=MODEL, prompt=prompt, **options)


async def streamed(worker: Worker, prompt: Any = PROMPT, **options: Any) -> list[Any]:
    return [chunk async for chunk in await complete(worker, prompt, stream=True, **options)]


async def test_a_prompt_is_completed_in_openai_s_shape(worker: Worker, engine: FakeEngine) -> None:
    answer = await complete(worker)

    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    (choice,) = answer.choices
    assert (choice.index, choice.text, choice.finish_reason) == (0, "one two", "stop")
    assert choice.logprobs is None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(PROMPT), 3)
    assert engine.begun[0].options.max_tokens == 16


async def test_two_prompts_with_two_answers_each_have_the_indexes_0_to_3(worker: Worker) -> None:
    answer = await complete(worker, ["a: say one", "b: say two"], n=2)

    told = [(choice.index, choice.text) for choice in answer.choices]
    assert told == [(0, "one"), (1, "one"), (2, "two"), (3, "two")]
    assert answer.usage.prompt_tokens == len("a: say one") + len("b: say two")


@pytest.mark.parametrize("several", [False, True])
async def test_a_prompt_may_be_tokens(worker: Worker, engine: FakeEngine, several: bool) -> None:
    tokens = [ord(character) for character in PROMPT]

    answer = await complete(worker, [tokens, tokens] if several else tokens)

    assert [choice.text for choice in answer.choices] == ["one two"] * (1 + several)
    assert text_of(engine.begun[0]) == PROMPT


async def test_an_echo_stands_before_each_answer(worker: Worker) -> None:
    answer = await complete(worker, echo=True, n=2)
    chunks = await streamed(worker, echo=True)

    assert [choice.text for choice in answer.choices] == [f"{PROMPT}one two"] * 2
    assert "".join(chunk.choices[0].text for chunk in chunks) == f"{PROMPT}one two"


async def test_streamed_chunks_are_text_completions_and_end_with_done(worker: Worker) -> None:
    *chunks, last = await streamed(worker, n=2, stream_options={"include_usage": True})

    assert {chunk.object for chunk in chunks} == {"text_completion"}
    for index in (0, 1):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.text for choice in own) == "one two"
        assert own[-1].finish_reason == "stop"
    assert (last.choices, last.usage.completion_tokens) == ([], 6)
    body = {"model": MODEL, "prompt": PROMPT, "stream": True}
    async with worker.session.post("/v1/completions", json=body) as answer:
        assert (await answer.text()).endswith("data: [DONE]\n\n")


async def test_an_error_in_the_middle_of_a_streamed_completion_reaches_the_sdk() -> None:
    async with serving(FakeEngine()) as worker:
        with pytest.raises(APIError, match="The engine failed"):
            await streamed(worker, "user: break after a b")


async def test_no_prompt_begins_where_all_texts_begin(worker: Worker, engine: FakeEngine) -> None:
    body = {"model": MODEL, "prompt": None}

    async with worker.session.post("/v1/completions", json=body) as answer:
        Completion.model_validate(await answer.json())

    assert engine.begun[0].prompt == [0]


async def test_best_of_generates_more_than_are_told(worker: Worker, engine: FakeEngine) -> None:
    answer = await complete(worker, ["a: say one", "b: say two"], best_of=3)

    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "one"), (1, "two")]
    assert len(engine.begun) == 6
    assert {sequence.options.logprobs for sequence in engine.begun} == {0}


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"prompt": []}, "prompt", "empty_array"),
        ({"prompt": [[]]}, "prompt[0]", "empty_array"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_type"),
        ({"prompt": [-1]}, "prompt[0]", "integer_below_min_value"),
        ({"prompt": [2_000_000]}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 2049}, "prompt", "array_above_max_length"),
        ({"prompt": ["a"] * 1000}, "prompt", "array_above_max_length"),
        ({"prompt": "x" * 5000}, "prompt", "context_length_exceeded"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"best_of": 21}, "best_of", "integer_above_max_value"),
        ({"best_of": 1, "n": 2}, "best_of", "invalid_value"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"model": "other"}, None, "model_not_found"),
        (
            {"prompt": ["x" * 4900] * 100, "echo": True, "logprobs": 5, "max_tokens": 1},
            "logprobs",
            "integer_above_max_value",
        ),
        (
            {"prompt": ["a"] * 100, "logprobs": 5, "max_tokens": 4000},
            "logprobs",
            "integer_above_max_value",
        ),
    ],
)
async def test_a_bad_value_is_named(
    worker: Worker, options: dict[str, Any], param: str | None, code: str
) -> None:
    body = json.dumps({"model": MODEL, "prompt": PROMPT} | options)
    async with worker.session.post("/v1/completions", data=body) as answer:
        error = (await answer.json())["error"]

    assert answer.status == (404 if code == "model_not_found" else 400)
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ({"a": 1}, "'prompt': expected a string or an array, but got an object instead"),
        (True, "'prompt': expected a string or an array, but got a boolean instead"),
        (
            [True],
            "'prompt[0]': expected a string, an integer or an array, but got a boolean instead",
        ),
        (
            [{}] * 3000,
            "'prompt[0]': expected a string, an integer or an array, but got an object instead",
        ),
        (["a", 1], "'prompt[1]': expected a string, but got an integer instead"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_prompt_of_another_kind_is_refused_in_words_that_help(
    worker: Worker, prompt: Any, told: str
) -> None:
    body = {"model": MODEL, "prompt": prompt}
    async with worker.session.post("/v1/completions", json=body) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["code"]) == (400, "invalid_type")
    assert error["message"] == f"Invalid type for {told}."
    assert error["param"] == told.split("'")[1]


@pytest.mark.parametrize(
    ("form", "held"),
    [
        ({"guided_choice": ["a", "b"]}, ("a", "b")),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {}},
                }
            },
            {},
        ),
    ],
)
async def test_a_completion_may_be_held_to_a_form_too(
    worker: Worker, engine: FakeEngine, form: dict[str, Any], held: Any
) -> None:
    await complete(worker, extra_body=form)

    assert form_of(engine.begun[0]) == held


async def test_more_prompts_than_places_are_refused_for_ever(worker: Worker) -> None:
    with pytest.raises(BadRequestError, match="at most 514 answers at once, not 600"):
        await complete(worker, ["a: say b"] * 6, n=100)


@dataclass(slots=True)
class WatchedTokenizer(FakeTokenizer):
    """Knows which threads make tokens readable."""

    threads: set[int] = field(default_factory=set)

    def decode(self, tokens: list[int]) -> str:
        self.threads.add(get_ident())
        return "".join(map(chr, tokens))


@pytest.mark.parametrize("stream", [False, True])
async def test_very_many_logprobs_are_not_told_by_the_event_loop(stream: bool) -> None:
    tokenizer = WatchedTokenizer()
    body = {"model": MODEL, "prompt": "x" * 400, "echo": True, "logprobs": 5, "stream": stream}

    async with (
        serving(FakeEngine(tokenizer=tokenizer)) as worker,
        worker.session.post("/v1/completions", json=body | {"max_tokens": 1}) as answer,
    ):
        assert (await answer.text()).count("-1.0") > 400

    assert tokenizer.threads
    assert get_ident() not in tokenizer.threads
