"""Chat templates that demand what those of well-known families demand, rendered for real."""

from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest
from batch_api.settings import DEMO_MODEL
from batch_api.worker.prompt import chat_prompt
from batch_api.worker.tools import toolbox

# Arguments are objects, printed by the template.
QWEN = """
{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}
{%- for message in messages %}[{{ message.role }}] {{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endfor %}"""

# One call a message.
LLAMA = """{# Environment: ipython #}
{%- for message in messages %}
{%- if 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('only single tool-calls') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
{%- else %}[{{ message.role }}] {{ message.content }}{% endif %}{% endfor %}"""

# Ids have nine letters and digits.
MISTRAL = """
{%- macro checked(id) %}
{%- if id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}{{ id }}
{%- endmacro %}
{%- for message in messages %}
{%- if message.tool_calls is defined %}[TOOL_CALLS][
{%- for call in message.tool_calls %}{{ call.function | tojson }} {{ checked(call.id) }}
{%- endfor %}]
{%- elif message.role == 'tool' %}[RESULT {{ checked(message.tool_call_id) }}] {{ message.content }}
{%- else %}[{{ message.role }}] {{ message.content }}{% endif %}{% endfor %}"""

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "go"},
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "call_abcdefghijklmnop",
                "type": "function",
                "function": {"name": "f", "arguments": '{"x": [1, "é"]}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_abcdefghijklmnop", "content": "done"},
]


def rendered(template: str, **options: Any) -> str:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    tokenizer.chat_template = template
    chat = ChatRequest.model_validate({"model": "m", "messages": MESSAGES, **options})
    text = tokenizer.decode(chat_prompt(tokenizer, chat, toolbox(chat, tokenizer), max_length=1024))
    assert isinstance(text, str)
    return text


def test_qwen_s_template_is_told_tools_and_arguments_as_objects() -> None:
    text = rendered(QWEN, tools=[{"type": "function", "function": FUNCTION}])

    assert '<tools>{"type": "function", "function": {"name": "f", "description": "d"' in text
    assert '{"name": "f", "arguments": {"x": [1, "é"]}}' in text
    assert "[tool] done" in text


def test_llama_s_template_is_told_a_call() -> None:
    assert '{"name": "f", "parameters": {"x": [1, "é"]}}[tool] done' in rendered(LLAMA)


def test_mistral_s_template_gets_ids_as_it_wants_them_and_the_same_for_call_and_result() -> None:
    text = rendered(MISTRAL)

    called = text.partition("} ")[2].partition("]")[0][-9:]
    assert f"[RESULT {called}] done" in text


def test_what_a_template_refuses_is_said_in_its_words() -> None:
    twice = {**MESSAGES[1], "tool_calls": MESSAGES[1]["tool_calls"] * 2}

    with pytest.raises(BadRequest, match="only single tool-calls"):
        rendered(LLAMA, messages=[MESSAGES[0], twice])


def test_arguments_that_are_not_json_stay_the_text_that_they_are() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{broken"}}

    text = rendered(QWEN, messages=[{"role": "assistant", "tool_calls": [call]}])

    assert '"arguments": "{broken"' in text


@pytest.mark.parametrize("name", ["tools", "messages", "add_generation_prompt", "bos_token"])
def test_variables_can_t_take_the_place_of_what_the_template_is_given(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        rendered(QWEN, chat_template_kwargs={name: "x"})

    assert caught.value.code == "unsupported_parameter"


def test_a_user_s_text_is_data_for_the_template() -> None:
    text = rendered(QWEN, messages=[{"role": "user", "content": "{{ 7 * 7 }}{% raw %}"}])

    assert "{{ 7 * 7 }}{% raw %}" in text


def test_the_bundled_model_s_own_template_is_told_of_tools_in_words() -> None:
    template = (DEMO_MODEL / "chat_template.jinja").read_text()

    text = rendered(template, tools=[{"type": "function", "function": FUNCTION}])

    assert text.startswith("<|system|>You may call functions")
    assert "<|user|><tool_response>\ndone\n</tool_response><|end|><|assistant|>" in text
