"""LangChain's classes for OpenAI, at our address."""

from typing import Any, Literal

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.sums import CHAT_MODEL, KEY

DIMENSIONS = 384


class Verdict(BaseModel):
    """What it came to."""

    answer: Literal["four", "five"]
    sure: bool


def _weather(city: Literal["Paris", "Rome"], days: Literal[1, 2, 3]) -> str:
    """Tell the weather."""
    return f"{city}: sunny for {days} days"


WEATHER = tool("weather", _weather)


@pytest.fixture
def chat(base_url: str) -> ChatOpenAI:
    return ChatOpenAI(model=CHAT_MODEL, base_url=base_url, api_key=SecretStr(KEY), temperature=0)


def test_a_chat_is_answered_with_its_usage(chat: ChatOpenAI) -> None:
    answer = chat.invoke([SystemMessage("The secret word is banana."), ("user", "What is 2+2?")])

    assert answer.content == "4"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == CHAT_MODEL
    usage = answer.usage_metadata
    assert usage is not None
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_several_chats_are_answered_each_in_its_place(chat: ChatOpenAI) -> None:
    answers = chat.batch([f"What is {n}+2?" for n in range(8)])

    assert [answer.content for answer in answers] == [str(n + 2) for n in range(8)]


def test_a_chat_is_streamed(chat: ChatOpenAI) -> None:
    chunks = list(chat.stream("Count to 5."))

    assert "".join(chunk.text for chunk in chunks) == "1, 2, 3, 4, 5"
    assert len([chunk for chunk in chunks if chunk.text]) > 1


async def test_a_chat_is_streamed_asynchronously_with_its_usage(chat: ChatOpenAI) -> None:
    chunks = [chunk async for chunk in chat.astream("Count to 5.", stream_usage=True)]

    assert "".join(chunk.text for chunk in chunks) == "1, 2, 3, 4, 5"
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    (usage,) = usages
    assert usage["output_tokens"] > 5


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_structured_answer_is_a_pydantic_object(chat: ChatOpenAI, method: Any) -> None:
    structured = chat.with_structured_output(Verdict, method=method)

    assert isinstance(structured.invoke("What is 2+2?"), Verdict)


def test_json_mode_gives_a_dictionary(chat: ChatOpenAI) -> None:
    structured = chat.with_structured_output(None, method="json_mode")

    assert structured.invoke("What is 2+2? Answer as JSON.") == {"answer": 4}


def test_a_bound_tool_is_called_and_its_result_taken(chat: ChatOpenAI) -> None:
    bound = chat.bind_tools([WEATHER], tool_choice="weather")
    question = HumanMessage("How is the weather?")

    asked = bound.invoke([question])

    assert isinstance(asked, AIMessage)
    (call,) = asked.tool_calls
    assert call["name"] == "weather"
    result = WEATHER.invoke(call)
    assert isinstance(result, ToolMessage)
    assert "sunny" in result.text
    assert chat.bind_tools([WEATHER]).invoke([question, asked, result]).usage_metadata


def test_a_streamed_call_of_a_tool_is_whole_in_the_end(chat: ChatOpenAI) -> None:
    first, *rest = chat.bind_tools([WEATHER], tool_choice="any").stream("How is the weather?")

    whole = first
    for chunk in rest:
        whole += chunk
    (call,) = whole.tool_calls
    assert "sunny" in WEATHER.invoke(call["args"])


def test_prompts_are_completed_one_several_and_streamed(base_url: str) -> None:
    model = OpenAI(model=CHAT_MODEL, base_url=base_url, api_key=SecretStr(KEY), temperature=0)
    prompts = [f"<|user|>What is {n}+2?<|end|><|assistant|>" for n in range(3)]

    assert model.invoke(prompts[2]) == "4"
    assert model.batch(prompts) == ["2", "3", "4"]
    assert "".join(model.stream(prompts[1])) == "3"


def test_a_prompt_that_is_too_long_is_what_langchain_calls_an_overflow(chat: ChatOpenAI) -> None:
    with pytest.raises(ContextOverflowError):
        chat.invoke("long " * 2_000)


def test_texts_become_vectors(base_url: str) -> None:
    embeddings = OpenAIEmbeddings(
        model="all-MiniLM-L6-v2",
        base_url=base_url,
        api_key=SecretStr(KEY),
        check_embedding_ctx_length=False,  # which would count OpenAI's tokens
    )

    several = embeddings.embed_documents(["A dog runs.", "Interest rates rose."])
    one = embeddings.embed_query("A dog runs.")

    assert [len(each) for each in several] == [DIMENSIONS, DIMENSIONS]
    assert one == pytest.approx(several[0], abs=1e-5)
