"""pydantic's errors in OpenAI's words."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from batch_api.envelope import parse
from batch_api.errors import BadRequest

Stop = Annotated[list[str], Field(min_length=1, max_length=2)]


class Tool(BaseModel, extra="forbid"):
    name: Annotated[str, Field(min_length=1)]


class Question(BaseModel):
    model: str
    kind: Literal["x", "y"] = "x"
    n: Annotated[int, Field(ge=1, lt=9)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1
    stop: str | Stop | None = None
    tools: list[Tool] = []


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ('{"model": 1}', "model", "invalid_type"),
        ('{"model": null}', "model", "missing_required_parameter"),
        ('{"model": "", "kind": "z"}', "kind", "invalid_value"),
        ('{"model": "", "n": 0}', "n", "integer_below_min_value"),
        ('{"model": "", "n": 9}', "n", "integer_above_max_value"),
        ('{"model": "", "n": %s}' % ("9" * 4_000), "n", "integer_above_max_value"),
        ('{"model": "", "n": 1.5}', "n", "invalid_type"),
        ('{"model": "", "n": "one"}', "n", "invalid_type"),
        ('{"model": "", "temperature": 2.1}', "temperature", "decimal_above_max_value"),
        ('{"model": "", "temperature": -1}', "temperature", "decimal_below_min_value"),
        ('{"model": "", "stop": 5}', "stop", "invalid_type"),
        ('{"model": "", "stop": ["a", 5]}', "stop[1]", "invalid_type"),
        ('{"model": "", "stop": []}', "stop", "empty_array"),
        ('{"model": "", "stop": ["", "", ""]}', "stop", "array_above_max_length"),
        ('{"model": "", "tools": [{}]}', "tools[0].name", "missing_required_parameter"),
        ('{"model": "", "tools": [{"name": ""}]}', "tools[0].name", "string_below_min_length"),
        ('{"model": "", "tools": [{"name": "a", "b": 1}]}', "tools[0].b", "unknown_parameter"),
        ('{"model": "", "tools": [7]}', "tools[0]", "invalid_type"),
        ("[]", None, "invalid_type"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_problem_has_its_code_and_names_its_parameter(
    body: str, param: str | None, code: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(Question, body.encode())

    assert (refused.value.param, refused.value.code) == (param, code)


def test_the_message_is_worded_as_openai_words_it() -> None:
    with pytest.raises(BadRequest) as refused:
        parse(Question, b'{"model": "", "temperature": 200}')

    assert refused.value.message == (
        "Invalid 'temperature': decimal above maximum value. "
        "Expected a value <= 2, but got 200 instead."
    )


def test_a_null_is_an_absent_parameter() -> None:
    question = parse(Question, b'{"model": "m", "n": null, "stop": null, "tools": null}')

    assert question == Question(model="m")
