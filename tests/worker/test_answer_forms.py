"""The forms that an answer may be asked for in, and what else reaches engine and template."""

import json
from typing import Any

import pytest
from openai import BadRequestError

from tests.worker.fake_engine import FakeEngine, FakeTokenizer, form_of, text_of
from tests.worker.serving import MODEL, Worker, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


async def ask(worker: Worker, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": "say hi"}]
    return await worker.client.chat.completions.create(model=MODEL, messages=messages, **options)


@pytest.mark.parametrize(
    ("options", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            {"type": "object"},
        ),
        *(
            (
                {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "a", "schema": SCHEMA, "strict": strict},
                    }
                },
                SCHEMA,
            )
            for strict in (True, False)
        ),
        ({"guided_json": SCHEMA}, SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, SCHEMA),
        ({"guided_regex": "a+"}, "a+"),
        ({"guided_choice": ["a", "b"]}, ("a", "b")),
        ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
        ({"structured_outputs": {"json_object": True}}, {"type": "object"}),
        ({"structured_outputs": {"regex": "a+"}}, "a+"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, ("a", "b")),
    ],
)
async def test_a_form_is_held_by_a_grammar(
    worker: Worker, engine: FakeEngine, options: dict[str, Any], grammar: object
) -> None:
    await ask(worker, extra_body=options)

    assert form_of(engine.begun[0]) == grammar


async def test_a_schema_that_can_t_be_held_is_refused(worker: Worker) -> None:
    schema = {"name": "a", "schema": {"title": "refuse me"}}
    with pytest.raises(BadRequestError) as caught:
        await ask(worker, response_format={"type": "json_schema", "json_schema": schema})

    assert caught.value.message.endswith("Invalid 'response_format': the schema is refused")
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_json_schema")


async def test_every_sampling_parameter_reaches_the_engine(
    worker: Worker, engine: FakeEngine
) -> None:
    await ask(
        worker,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"7": -100},
        logprobs=True,
        top_logprobs=2,
        extra_body={
            "top_k": 40,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "min_tokens": 1,
            "stop_token_ids": [5, 6],
        },
    )

    options = engine.begun[0].options
    assert (options.frequency_penalty, options.presence_penalty) == (0.5, -0.5)
    assert (options.logit_bias, options.logprobs) == ({7: -100}, 2)
    assert (options.top_k, options.min_p, options.repetition_penalty) == (40, 0.1, 1.1)
    assert (options.min_tokens, options.stop_tokens) == (1, frozenset({5, 6}))


@pytest.mark.parametrize(
    ("template", "options", "told"),
    [
        ("{{ reasoning_effort }}", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("{{ enable_thinking }}", {"reasoning_effort": "none"}, {"enable_thinking": False}),
        ("{{ enable_thinking }}", {"reasoning_effort": "high"}, {"enable_thinking": True}),
        ("no such switch", {"reasoning_effort": "high"}, None),
        ("any", {"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}),
        (
            "{{ enable_thinking }}",
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            {"enable_thinking": False},
        ),
    ],
)
async def test_effort_and_variables_reach_the_template(
    template: str, options: dict[str, Any], told: dict[str, Any] | None
) -> None:
    engine = FakeEngine(tokenizer=FakeTokenizer(chat_template=template))
    async with serving(engine) as worker:
        await ask(worker, extra_body=options)

    head, *_ = text_of(engine.begun[0]).splitlines()
    assert head == (json.dumps(told) if told else "user: say hi")
