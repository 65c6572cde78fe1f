"""Calling functions, over the SDK; what the model writes is what the fake engine is told to say."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import BadRequestError, pydantic_function_tool
from pydantic import BaseModel

from tests.worker.fake_engine import FakeEngine, FakeTokenizer, form_of, text_of
from tests.worker.serving import MODEL, Worker, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TIME: Any = {"type": "function", "function": {"name": "time"}}
PARIS = '{"city": "Paris"}'
CALL = f'<tool_call>{{"name": "weather", "arguments": {PARIS}}}</tool_call>'
CALL_TIME = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
HERMES = "{{ tools }}<tool_call>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hermes() -> AsyncIterator[Worker]:
    """Its template knows tools."""
    tokenizer = FakeTokenizer(chat_template=HERMES)
    async with serving(FakeEngine(tokenizer=tokenizer)) as it:
        yield it


async def ask(worker: Worker, content: str, **options: Any) -> Any:
    return await worker.client.chat.completions.create(
        **{
            "model": MODEL,
            "messages": [{"role": "user", "content": f"say {content}"}],
            "tools": [WEATHER, TIME],
            **options,
        }
    )


async def streamed(worker: Worker, content: str, **options: Any) -> list[Any]:
    chunks = await ask(worker, content, stream=True, **options)
    return [chunk.choices[0] async for chunk in chunks]


def prompt_of(worker: Worker) -> str:
    return text_of(worker.engine.begun[-1])


def rebuilt(choices: list[Any]) -> list[tuple[str, str, str]]:
    """The calls of a stream: id, name and arguments."""
    calls: dict[int, tuple[str, str, str]] = {}
    for choice in choices:
        for part in choice.delta.tool_calls or ():
            id, name, arguments = calls.get(part.index, ("", "", ""))
            calls[part.index] = (
                id + (part.id or ""),
                name + (part.function.name or ""),
                arguments + part.function.arguments,
            )
    return list(calls.values())


async def test_calls_come_as_tool_calls_with_json_text_as_arguments(worker: Worker) -> None:
    (choice,) = (await ask(worker, CALL + CALL_TIME)).choices

    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    weather, time = choice.message.tool_calls
    assert (weather.type, weather.function.name) == ("function", "weather")
    assert weather.function.arguments == PARIS
    assert (time.function.name, time.function.arguments) == ("time", "{}")
    assert weather.id.startswith("call_")
    assert weather.id != time.id


async def test_text_before_a_call_is_the_content(worker: Worker) -> None:
    (choice,) = (await ask(worker, f"let me see {CALL}")).choices

    assert choice.message.content == "let me see"
    assert len(choice.message.tool_calls) == 1


async def test_without_a_call_an_answer_is_as_ever(worker: Worker) -> None:
    (choice,) = (await ask(worker, "it is sunny")).choices

    assert choice.finish_reason == "stop"
    assert choice.message.content == "it is sunny"
    assert choice.message.tool_calls is None


async def test_streamed_deltas_rebuild_the_same_calls(worker: Worker) -> None:
    choices = await streamed(worker, f"let me see {CALL}{CALL_TIME}")

    text = "".join(choice.delta.content or "" for choice in choices)
    weather, time = rebuilt(choices)
    assert text == "let me see"
    assert (weather[1:], time[1:]) == (("weather", PARIS), ("time", "{}"))
    assert choices[-1].finish_reason == "tool_calls"


async def test_a_call_is_streamed_while_it_is_written(worker: Worker) -> None:
    choices = await streamed(worker, CALL)

    (first, *more) = [choice.delta.tool_calls[0] for choice in choices if choice.delta.tool_calls]
    assert first.id.startswith("call_")
    assert (first.type, first.function.name, first.function.arguments) == (
        "function",
        "weather",
        "",
    )
    assert len(more) > 1
    assert all((part.id, part.function.name) == (None, None) for part in more)


async def test_the_sdk_s_stream_helper_gathers_the_calls(worker: Worker) -> None:
    messages: Any = [{"role": "user", "content": f"say {CALL}"}]
    async with worker.client.chat.completions.stream(
        model=MODEL, messages=messages, tools=[WEATHER]
    ) as stream:
        kinds = [event.type async for event in stream]
        completion = await stream.get_final_completion()

    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.function.arguments == PARIS


async def test_a_pydantic_function_tool_is_parsed_by_the_sdk(worker: Worker) -> None:
    class Weather(BaseModel):
        city: str

    messages: Any = [{"role": "user", "content": f"say {CALL}"}]
    completion = await worker.client.chat.completions.parse(
        model=MODEL, messages=messages, tools=[pydantic_function_tool(Weather, name="weather")]
    )

    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert call.function.parsed_arguments == Weather(city="Paris")


async def test_of_parallel_calls_only_the_first_comes_if_they_are_not_wanted(
    worker: Worker,
) -> None:
    options = {"parallel_tool_calls": False}

    (choice,) = (await ask(worker, CALL + CALL_TIME, **options)).choices
    calls = rebuilt(await streamed(worker, CALL + CALL_TIME, **options))

    assert [call.function.name for call in choice.message.tool_calls] == ["weather"]
    assert [name for _, name, _ in calls] == ["weather"]


async def test_a_call_that_is_cut_ends_with_length(worker: Worker) -> None:
    (choice,) = (await ask(worker, CALL, max_tokens=4)).choices

    assert choice.finish_reason == "length"
    (call,) = choice.message.tool_calls
    assert call.function.arguments == '{"city":'


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
@pytest.mark.parametrize("begun", ["<tool_ca", '<tool_call>{"name": "wea'])
async def test_a_call_that_must_be_made_but_is_cut_before_its_name_is_no_text(
    worker: Worker, choice: Any, begun: str
) -> None:
    options = {"tool_choice": choice, "max_tokens": len(begun.split(" "))}

    (answer,) = (await ask(worker, begun, **options)).choices
    chunks = await streamed(worker, begun, **options)

    assert (answer.message.content, answer.message.tool_calls) == (None, None)
    assert answer.finish_reason == chunks[-1].finish_reason == "length"
    assert {chunk.delta.content or "" for chunk in chunks} == {""}


async def test_a_call_that_may_be_made_and_is_cut_before_its_name_is_text(worker: Worker) -> None:
    (answer,) = (await ask(worker, "<tool_ca", max_tokens=1)).choices

    assert answer.message.content == "<tool_ca"


async def test_with_tool_choice_none_nothing_is_offered_and_nothing_called(worker: Worker) -> None:
    (choice,) = (await ask(worker, CALL, tool_choice="none")).choices

    assert choice.message.content == CALL
    assert prompt_of(worker) == f"user: say {CALL}\n"


async def test_only_allowed_tools_are_offered_and_called(worker: Worker) -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}

    (answer,) = (await ask(worker, CALL + CALL_TIME, tool_choice=choice)).choices

    assert [call.function.name for call in answer.message.tool_calls] == ["time"]
    assert '"weather", "description"' not in prompt_of(worker)


@pytest.mark.parametrize(
    ("choice", "held"),
    [
        ("required", (["weather", "time"], None)),
        ({"type": "function", "function": {"name": "time"}}, (["time"], 1)),
    ],
)
async def test_who_must_call_is_held_to_it_by_a_grammar(
    worker: Worker, choice: Any, held: tuple[list[str], int | None]
) -> None:
    await ask(worker, CALL_TIME, tool_choice=choice)

    told = form_of(worker.engine.begun[-1])
    names = [json.loads(tag.begin.split("\n")[1] + "{}}")["name"] for tag in told["tags"]]
    assert (names, told["most"]) == held
    assert (told["least"], told["separator"]) == (1, "\n")


async def test_a_form_and_tools_that_may_be_called_share_a_grammar(worker: Worker) -> None:
    await ask(worker, "{}", response_format={"type": "json_object"})

    told = form_of(worker.engine.begun[-1])
    assert (len(told["tags"]), json.loads(told["otherwise"])) == (2, {"type": "object"})


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
    ],
)
async def test_tools_that_can_t_be_meant_are_refused(
    worker: Worker, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(worker, "hi", **options)

    assert caught.value.param == param


TALK: Any = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": PARIS},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "user", "content": "say ok"},
]


async def test_a_template_that_knows_tools_gets_them_and_arguments_as_objects(
    hermes: Worker,
) -> None:
    await ask(hermes, "", messages=TALK)

    head, *lines = prompt_of(hermes).splitlines()
    assert json.loads(head)["tools"][0] == WEATHER
    call = json.loads(lines[1].removeprefix("assistant:  "))["tool_calls"][0]
    assert call["function"] == {"name": "weather", "arguments": {"city": "Paris"}}
    assert lines[2] == 'tool: sunny {"tool_call_id": "call_1"}'


async def test_a_template_that_knows_no_tools_is_told_of_them_in_words(worker: Worker) -> None:
    await ask(worker, "", messages=TALK)

    prompt = prompt_of(worker)
    assert prompt.startswith("system: You may call functions")
    assert json.dumps(WEATHER["function"]) in prompt
    assert f'assistant: <tool_call>\n{{"name": "weather", "arguments": {PARIS}}}\n' in prompt
    assert "user: <tool_response>\nsunny\n</tool_response>\n" in prompt


async def test_a_system_message_stays_before_the_words_about_tools(worker: Worker) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "say hi"}]

    await ask(worker, "", messages=messages)

    assert prompt_of(worker).startswith("system: Be kind.\n\nYou may call functions")


async def test_deprecated_functions_are_answered_in_their_own_words(worker: Worker) -> None:
    options: dict[str, Any] = {"tools": None, "functions": [WEATHER["function"]]}

    (choice,) = (await ask(worker, CALL, function_call="auto", **options)).choices
    chunks = await streamed(worker, CALL, **options)

    assert choice.finish_reason == "function_call"
    assert choice.message.function_call.to_dict() == {"name": "weather", "arguments": PARIS}
    parts = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert parts[0].name == "weather"
    assert "".join(part.arguments for part in parts) == PARIS


async def test_deprecated_messages_are_read_as_calls_and_their_results(hermes: Worker) -> None:
    call = {"name": "weather", "arguments": PARIS}
    messages = [
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "weather", "content": "sunny"},
        {"role": "user", "content": "say ok"},
    ]

    await ask(hermes, "", messages=messages)

    _, called, result, _ = prompt_of(hermes).splitlines()
    assert '"id": "weather"' in called
    assert result == 'tool: sunny {"name": "weather", "tool_call_id": "weather"}'
