"""Answers in a form, and calls of functions, over the SDK, with the bundled model.

It has never seen a tool or a schema: what comes out right is held by a grammar.
"""

import json
import re
from typing import Any, Literal

import pytest
from openai import BadRequestError, LengthFinishReasonError, OpenAI, pydantic_function_tool
from pydantic import BaseModel

from batch_api.settings import DEMO_MODEL_NAME

pytestmark = pytest.mark.slow  # a real worker

NAME = DEMO_MODEL_NAME
SUM: Any = [{"role": "user", "content": "What is 2+2?"}]


class Verdict(BaseModel):
    answer: Literal["four", "five"]
    sure: bool


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    days: Literal[1, 2, 3]


class Time(BaseModel):
    zone: Literal["UTC"]


WEATHER: Any = pydantic_function_tool(Weather, name="weather")
TIME: Any = pydantic_function_tool(Time, name="time")


def ask(real_client: OpenAI, **options: Any) -> Any:
    return real_client.chat.completions.create(
        **{"model": NAME, "messages": SUM, "max_tokens": 300, **options}
    )


def called(choice: Any) -> list[tuple[str, BaseModel]]:
    models: dict[str, type[BaseModel]] = {"weather": Weather, "time": Time}
    return [
        (name, models[name].model_validate_json(call.function.arguments))
        for call in choice.message.tool_calls
        for name in [call.function.name]
    ]


def test_parse_gives_a_pydantic_model(real_client: OpenAI) -> None:
    for seed in range(3):
        completion = real_client.chat.completions.parse(
            model=NAME, messages=SUM, response_format=Verdict, seed=seed
        )

        assert isinstance(completion.choices[0].message.parsed, Verdict)
        assert completion.choices[0].finish_reason == "stop"


def test_parse_of_a_cut_answer_raises(real_client: OpenAI) -> None:
    with pytest.raises(LengthFinishReasonError):
        real_client.chat.completions.parse(
            model=NAME, messages=SUM, response_format=Verdict, max_tokens=1
        )


def test_a_streamed_answer_holds_its_schema_too(real_client: OpenAI) -> None:
    with real_client.chat.completions.stream(
        model=NAME, messages=SUM, response_format=Verdict
    ) as stream:
        completion = stream.get_final_completion()

    assert isinstance(completion.choices[0].message.parsed, Verdict)


def test_a_json_object_comes_out_as_one(real_client: OpenAI) -> None:
    (choice,) = ask(
        real_client,
        messages=[{"role": "user", "content": "What is 2+2? Answer as JSON."}],
        response_format={"type": "json_object"},
    ).choices

    assert isinstance(json.loads(choice.message.content), dict)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"guided_regex": "[a-c]{3}"}, "[a-c]{3}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"structured_outputs": {"regex": "x+y"}, "logit_bias": {}}, "x+y"),
        ({"guided_json": {"enum": [1, 2]}}, "1|2"),
    ],
)
def test_what_vllm_calls_guided_is_held(
    real_client: OpenAI, form: dict[str, Any], pattern: str
) -> None:
    answer = ask(real_client, n=3, temperature=2, extra_body=form)

    assert all(re.fullmatch(pattern, choice.message.content) for choice in answer.choices)


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "nonsense"}},
                }
            },
            "response_format",
            "invalid_json_schema",
        ),
        ({"extra_body": {"guided_json": {"title": "a" * 200_000}}}, "guided_json", "invalid_value"),
        ({"extra_body": {"guided_json": "{not json"}}, "guided_json", "invalid_value"),
        ({"extra_body": {"guided_regex": "("}}, "guided_regex", "invalid_value"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"properties": 7}},
                    }
                ],
                "tool_choice": "required",
            },
            "tools",
            "invalid_function_parameters",
        ),
    ],
)
def test_what_can_t_be_held_is_refused(
    real_client: OpenAI, options: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(real_client, **options)

    assert (caught.value.param, caught.value.code) == (param, code)


def test_who_must_call_calls_functions_on_offer_with_right_parameters(real_client: OpenAI) -> None:
    answer = ask(
        real_client,
        tools=[WEATHER, TIME],
        tool_choice="required",
        temperature=1.5,
        n=8,
        seed=1,
        max_tokens=200,
    )

    ended = [choice for choice in answer.choices if choice.finish_reason == "tool_calls"]
    assert len(ended) > 4
    assert {name for choice in ended for name, _ in called(choice)} <= {"weather", "time"}
    assert all(choice.message.content is None for choice in answer.choices)


def test_a_named_function_is_called_once(real_client: OpenAI) -> None:
    (choice,) = ask(
        real_client,
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "function": {"name": "time"}},
    ).choices

    assert choice.finish_reason == "tool_calls"
    assert called(choice) == [("time", Time(zone="UTC"))]


def test_without_parallel_calls_one_is_made(real_client: OpenAI) -> None:
    answer = ask(
        real_client,
        tools=[WEATHER, TIME],
        tool_choice="required",
        parallel_tool_calls=False,
        n=4,
        max_tokens=200,
    )

    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        assert len(called(choice)) == 1


def test_a_streamed_call_is_the_same_as_the_whole_one(real_client: OpenAI) -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "seed": 3, "temperature": 1.5}
    options["tool_choice"] = {"type": "function", "function": {"name": "weather"}}

    (whole,) = ask(real_client, **options).choices
    with real_client.chat.completions.stream(
        model=NAME, messages=SUM, max_tokens=300, **options
    ) as stream:
        streamed = stream.get_final_completion().choices[0]

    assert streamed.finish_reason == whole.finish_reason == "tool_calls"
    assert called(streamed) == called(whole)


def test_a_form_is_held_where_tools_might_be_called(real_client: OpenAI) -> None:
    for seed in range(4):
        completion = real_client.chat.completions.parse(
            model=NAME,
            messages=SUM,
            response_format=Verdict,
            tools=[TIME],
            seed=seed,
            max_tokens=300,
            temperature=1.5,
        )

        message = completion.choices[0].message
        assert isinstance(message.parsed, Verdict) != bool(message.tool_calls)


def test_a_response_may_be_held_to_a_form_or_to_a_call(real_client: OpenAI) -> None:
    parsed = real_client.responses.parse(model=NAME, input="What is 2+2?", text_format=Verdict)
    forced: Any = real_client.responses.create(
        model=NAME,
        input="What is 2+2?",
        tools=[_flat(TIME)],
        tool_choice={"type": "function", "name": "time"},
    )

    assert isinstance(parsed.output_parsed, Verdict)
    (call,) = forced.output
    assert Time.model_validate_json(call.arguments) == Time(zone="UTC")


def _flat(tool: Any) -> Any:
    return {"type": "function", **tool["function"]}
