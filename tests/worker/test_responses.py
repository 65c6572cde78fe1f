"""`/v1/responses` over the SDK, from the fake engine."""

import json
from typing import Any

import pytest
from openai import APIError, BadRequestError, NotFoundError
from pydantic import BaseModel

from tests.worker.fake_engine import FakeEngine, form_of, text_of
from tests.worker.serving import MODEL, Worker, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARIS = '{"city": "Paris"}'
CALL = f'<tool_call>{{"name": "weather", "arguments": {PARIS}}}</tool_call>'
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


async def respond(worker: Worker, input: Any = "say one two", **options: Any) -> Any:
    return await worker.client.responses.create(**{"model": MODEL, "input": input, **options})


async def test_a_text_is_answered_in_openai_s_shape(worker: Worker) -> None:
    answer = await respond(worker, metadata={"a": "b"}, temperature=0.5)

    assert answer.id.startswith("resp_")
    assert (answer.object, answer.status, answer.model) == ("response", "completed", MODEL)
    assert answer.output_text == "one two"
    (message,) = answer.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (answer.error, answer.incomplete_details) == (None, None)
    assert (answer.metadata, answer.temperature, answer.tools) == ({"a": "b"}, 0.5, [])
    assert answer.usage.input_tokens == len("user: say one two\n")
    assert (answer.usage.output_tokens, answer.usage.total_tokens) == (3, 21)


async def test_a_cut_answer_is_incomplete(worker: Worker) -> None:
    answer = await respond(worker, "count", max_output_tokens=2)

    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "1 2 "


async def test_instructions_messages_calls_and_results_become_one_chat(
    worker: Worker, engine: FakeEngine
) -> None:
    await respond(
        worker,
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Well."}],
            },
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": PARIS},
            {"type": "function_call_output", "call_id": "c", "output": "sunny"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"role": "user", "content": "say ok"},
        ],
        instructions="Be kind.",
    )

    assert text_of(engine.begun[0]) == (
        "system: Be kind.\nuser: Weather?\n"
        'assistant: Well.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
        "</tool_call>\n"
        "user: <tool_response>\nsunny\n</tool_response>\nuser: say ok\n"
    )


async def test_a_call_is_an_item_of_the_output(worker: Worker) -> None:
    answer = await respond(worker, f"say see {CALL}", tools=[WEATHER])

    message, call = answer.output
    assert message.content[0].text == "see"
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", PARIS)
    assert call.call_id.startswith("call_")
    assert call.id.startswith("fc_")


async def test_who_must_call_is_held_to_it(worker: Worker, engine: FakeEngine) -> None:
    await respond(worker, tools=[WEATHER], tool_choice={"type": "function", "name": "weather"})

    told = form_of(engine.begun[0])
    assert (len(told["tags"]), told["most"]) == (1, 1)


async def test_a_call_that_must_be_made_but_is_cut_before_its_name_is_no_item(
    worker: Worker,
) -> None:
    options = {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 1}

    answer = await respond(worker, "say <tool_ca", **options)
    events = [
        event async for event in await respond(worker, "say <tool_ca", stream=True, **options)
    ]

    assert (answer.status, answer.output) == ("incomplete", [])
    assert [event.type for event in events][2:] == ["response.incomplete"]


@pytest.mark.parametrize("options", [{}, {"tools": [WEATHER]}])
async def test_a_stream_tells_the_same_as_the_whole_answer(
    worker: Worker, options: dict[str, Any]
) -> None:
    input = f"say see {CALL}"
    whole = await respond(worker, input, **options)

    events = [event async for event in await respond(worker, input, stream=True, **options)]

    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    done = [event.item for event in events if event.type == "response.output_item.done"]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output == done
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage
    assert [item.type for item in done] == [item.type for item in whole.output]
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(texts) == whole.output_text
    deltas = (e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert "".join(deltas) == (PARIS if options else "")


async def test_the_sdk_s_stream_helper_works(worker: Worker) -> None:
    async with worker.client.responses.stream(
        model=MODEL, input=f"say see {CALL}", tools=[WEATHER]
    ) as stream:
        response = await stream.get_final_response()

    assert response.output_text == "see"
    assert response.output[1].type == "function_call"


async def test_the_sdk_s_parse_gives_the_model(worker: Worker, engine: FakeEngine) -> None:
    class Answer(BaseModel):
        x: int

    response = await worker.client.responses.parse(
        model=MODEL, input='say {"x": 4}', text_format=Answer
    )

    assert response.output_parsed == Answer(x=4)
    schema = form_of(engine.begun[0])
    assert schema["properties"]["x"]["type"] == "integer"


async def test_an_error_in_the_middle_of_a_streamed_response_reaches_the_sdk() -> None:
    async with serving(FakeEngine()) as worker:
        with pytest.raises(APIError, match="The engine failed"):
            async for _ in await respond(worker, "break after a b", stream=True):
                pass


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "unsupported_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
            "unsupported_parameter",
        ),
        (
            {"input": [{"type": "item_reference", "id": "x"}]},
            "input[0].type",
            "unsupported_parameter",
        ),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        *(
            (
                {"input": [{"role": "user", "content": [{"type": type}]}]},
                f"input[0].content[0].{missing}",
                "missing_required_parameter",
            )
            for type, missing in (
                ("input_text", "text"),
                ("output_text", "text"),
                ("refusal", "refusal"),
            )
        ),
    ],
)
async def test_what_is_bad_or_not_supported_is_named(
    worker: Worker, options: dict[str, Any], param: str, code: str
) -> None:
    body = json.dumps({"model": MODEL, "input": "say hi"} | options)
    async with worker.session.post("/v1/responses", data=body) as answer:
        error = (await answer.json())["error"]

    assert answer.status == 400
    assert (error["param"], error["code"]) == (param, code)


def _allowing(mode: str, *names: Any) -> dict[str, Any]:
    tools = [{"type": "function", "name": name} for name in names]
    return {"type": "allowed_tools", "mode": mode, "tools": tools}


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"input": "x" * 6000}, "input", "context_length_exceeded"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "empty_array"),
        (
            {"input": [{"role": "user", "content": "a"}] * 4096, "instructions": "b"},
            "input",
            "array_above_max_length",
        ),
        ({"input": "refuse me"}, "input", "invalid_value"),
        (
            {
                "text": {
                    "format": {"type": "json_schema", "name": "a", "schema": {"b": "refuse me"}}
                }
            },
            "text.format",
            "invalid_json_schema",
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": 1}},
            "tool_choice.name",
            "invalid_type",
        ),
        (
            {"tools": [WEATHER], "tool_choice": _allowing("perhaps", "weather")},
            "tool_choice.mode",
            "invalid_value",
        ),
        (
            {"tools": [WEATHER], "tool_choice": _allowing("auto", 1)},
            "tool_choice.tools[0].name",
            "invalid_type",
        ),
        ({"max_output_tokens": 9999}, "input", "context_length_exceeded"),
    ],
)
async def test_what_is_wrong_with_its_chat_is_told_in_a_response_s_words(
    worker: Worker, options: dict[str, Any], param: str, code: str
) -> None:
    body = json.dumps({"model": MODEL, "input": "say hi"} | options)
    async with worker.session.post("/v1/responses", data=body) as answer:
        error = (await answer.json())["error"]

    assert answer.status == 400
    assert (error["param"], error["code"]) == (param, code)
    chats = ("messages'", "messages[", "response_format", ".function", "max_completion", "allowed_")
    assert not [word for word in chats if word in error["message"]]


async def test_background_false_and_what_changes_nothing_are_accepted(worker: Worker) -> None:
    answer = await respond(
        worker, background=False, store=True, user="u", truncation="disabled", service_tier="flex"
    )

    assert answer.output_text == "one two"


async def test_another_model_is_404(worker: Worker) -> None:
    with pytest.raises(NotFoundError):
        await respond(worker, model="other")


async def test_what_does_not_fit_is_refused(worker: Worker) -> None:
    with pytest.raises(BadRequestError) as caught:
        await respond(worker, "x" * 6000)

    assert caught.value.code == "context_length_exceeded"
