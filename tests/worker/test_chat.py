"""Single answers, over the SDK, from the fake engine."""

import json
from io import BytesIO
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, InternalServerError, NotFoundError

from batch_api.engine.sequence import Priority
from tests.worker.fake_engine import FakeEngine, FakeTokenizer, text_of
from tests.worker.serving import CHAT, MODEL, Worker, chat, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(client: AsyncOpenAI, content: str, **options: Any) -> Any:
    return await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], **options
    )


async def test_a_chat_is_answered_in_openai_s_shape(worker: Worker) -> None:
    answer = await ask(worker.client, "say one two three")

    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.system_fingerprint.startswith("fp_")
    assert answer.service_tier is None
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", "one two three")
    assert choice.message.refusal is None
    assert answer._request_id


async def test_usage_counts_the_prompt_s_ids_and_the_generated_ones_with_the_end_token(
    worker: Worker,
) -> None:
    usage = (await ask(worker.client, "say one two three")).usage

    assert usage.prompt_tokens == len("user: say one two three\n")
    assert usage.completion_tokens == 4
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == 0


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_ends_the_answer_with_length(worker: Worker, name: str) -> None:
    answer = await ask(worker.client, "count", **{name: 1})

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 1


async def test_of_two_limits_the_newer_name_wins(worker: Worker) -> None:
    answer = await ask(worker.client, "count", max_tokens=9, max_completion_tokens=2)

    assert answer.usage.completion_tokens == 2


async def test_without_a_limit_an_answer_gets_what_fits(worker: Worker, engine: FakeEngine) -> None:
    answer = await ask(worker.client, "say hi")

    assert engine.begun[0].options.max_tokens == engine.max_length - answer.usage.prompt_tokens


async def test_nulls_are_as_good_as_absent(worker: Worker) -> None:
    names = ("temperature", "max_tokens", "stop", "seed", "tools", "logprobs", "n", "stream")

    answer = await ask(worker.client, "say hi", extra_body=dict.fromkeys(names))

    assert answer.choices[0].message.content == "hi"


async def test_options_reach_the_engine(worker: Worker, engine: FakeEngine) -> None:
    await ask(worker.client, "say hi", temperature=0.5, top_p=0.9, seed=-7, stop=["X", "Y"])

    options = engine.begun[0].options
    assert (options.temperature, options.top_p, options.seed) == (0.5, 0.9, -7)
    assert options.stop == ("X", "Y")


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_p": 0}, {"top_p": 1e-300}])
async def test_no_temperature_and_no_nucleus_are_greedy(
    worker: Worker, engine: FakeEngine, options: dict[str, float]
) -> None:
    await ask(worker.client, "say hi", **options)

    assert (engine.begun[0].options.temperature, engine.begun[0].options.top_p) == (0, 1)


async def test_what_changes_nothing_here_is_ignored(worker: Worker) -> None:
    answer = await ask(
        worker.client,
        "say hi",
        user="u",
        store=True,
        metadata={"a": "b"},
        reasoning_effort="low",
        response_format={"type": "text"},
        service_tier="flex",
        extra_body={"unheard_of": {"of": 1}, "top_k": -1},
    )

    assert answer.service_tier == "default"


async def test_a_developer_s_word_is_the_system_s_and_parts_are_joined(
    worker: Worker, engine: FakeEngine
) -> None:
    part = {"type": "text", "text": "say hi"}
    messages: Any = [
        {"role": "developer", "content": "be kind", "name": "boss"},
        {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": None},
        {"role": "user", "content": [part, part]},
    ]

    await worker.client.chat.completions.create(model=MODEL, messages=messages)

    expected = "system: be kind\nassistant: yes\nuser: say hi\nsay hi\n"
    assert text_of(engine.begun[0]) == expected


async def test_an_unknown_model_is_404(worker: Worker) -> None:
    with pytest.raises(NotFoundError) as caught:
        await worker.client.chat.completions.create(
            model="other", messages=[{"role": "user", "content": "say hi"}]
        )

    assert (caught.value.code, caught.value.param) == ("model_not_found", None)


@pytest.mark.parametrize(
    ("content", "options"),
    [("say " + "x" * 5000, {}), ("say hi", {"max_tokens": 4990}), ("hi", {"max_tokens": 10**30})],
)
async def test_what_does_not_fit_the_context_is_refused(
    worker: Worker, content: str, options: dict[str, int]
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(worker.client, content, **options)

    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


async def test_what_the_engine_itself_refuses_is_a_matter_of_that_request_alone(
    worker: Worker,
) -> None:
    with pytest.raises(BadRequestError, match="there is no room for it"):
        await ask(worker.client, "it does not fit")

    assert (await ask(worker.client, "say hi")).choices[0].message.content == "hi"


async def test_a_template_that_refuses_the_messages_says_why(worker: Worker) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(worker.client, "refuse me")

    assert caught.value.param == "messages"
    assert caught.value.message.endswith("refuses the messages: roles must alternate")


async def test_a_model_without_a_chat_template_can_t_be_chatted_with() -> None:
    async with serving(FakeEngine(tokenizer=FakeTokenizer(chat_template=""))) as worker:
        with pytest.raises(BadRequestError, match="no chat template"):
            await ask(worker.client, "say hi")


async def test_the_priority_header_reaches_the_engine(worker: Worker, engine: FakeEngine) -> None:
    for headers in ({}, {"x-batch-api-priority": "batch"}):
        await ask(worker.client, "say hi", extra_headers=headers)

    assert [each.priority for each in engine.begun] == [Priority.INTERACTIVE, Priority.BATCH]


async def test_an_unknown_priority_is_400(worker: Worker) -> None:
    with pytest.raises(BadRequestError, match="must be one of: interactive, batch"):
        await ask(worker.client, "say hi", extra_headers={"x-batch-api-priority": "now"})


async def test_a_body_over_the_limit_is_413(worker: Worker) -> None:
    body = BytesIO(json.dumps(chat("x" * 17 * 2**20)).encode())

    async with worker.session.post(CHAT, data=body) as answer:
        assert answer.status == 413


async def test_a_failing_engine_answers_502_and_takes_nothing_more() -> None:
    async with serving(FakeEngine()) as worker:
        for content, status in (("break", 502), ("say hi", 503)):
            with pytest.raises(InternalServerError) as caught:
                await ask(worker.client, content)
            assert caught.value.status_code == status
