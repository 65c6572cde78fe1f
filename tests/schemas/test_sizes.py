"""What is too large is refused before its elements are looked at, of which all are wrong here."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from batch_api.envelope import validate
from batch_api.errors import BadRequest
from batch_api.schemas.batches import NewBatch
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.completions import CompletionRequest
from batch_api.schemas.embeddings import EmbeddingsRequest
from batch_api.schemas.responses import ResponseRequest
from batch_api.schemas.uploads import UploadCompletion

NEW_BATCH = {"input_file_id": "a", "endpoint": "/v1/embeddings", "completion_window": "24h"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}
RESPONSE = {"model": "m", "input": "hi"}

MANY: dict[str, Any] = {str(number): [] for number in range(1_000_000)}
LIST = [None] * 1_000_000

_PROPERTIES = "object_above_max_properties"
_LENGTH = "array_above_max_length"


@pytest.mark.parametrize(
    ("model", "body", "param", "code"),
    [
        (NewBatch, NEW_BATCH | {"metadata": MANY}, "metadata", _PROPERTIES),
        (ChatRequest, CHAT | {"metadata": MANY}, "metadata", _PROPERTIES),
        (ChatRequest, CHAT | {"logit_bias": MANY}, "logit_bias", _PROPERTIES),
        (ChatRequest, CHAT | {"chat_template_kwargs": MANY}, "chat_template_kwargs", _PROPERTIES),
        (ChatRequest, CHAT | {"tools": LIST}, "tools", _LENGTH),
        (ChatRequest, CHAT | {"functions": LIST}, "functions", _LENGTH),
        (ChatRequest, CHAT | {"stop": LIST}, "stop", _LENGTH),
        (ChatRequest, CHAT | {"stop_token_ids": LIST}, "stop_token_ids", _LENGTH),
        (ChatRequest, CHAT | {"guided_choice": LIST}, "guided_choice", _LENGTH),
        (ChatRequest, CHAT | {"messages": LIST}, "messages[0]", "invalid_type"),
        (CompletionRequest, COMPLETION | {"logit_bias": MANY}, "logit_bias", _PROPERTIES),
        (CompletionRequest, COMPLETION | {"prompt": LIST}, "prompt[0]", "invalid_type"),
        (EmbeddingsRequest, COMPLETION | {"input": LIST}, "input[0]", "invalid_type"),
        (ResponseRequest, RESPONSE | {"metadata": MANY}, "metadata", _PROPERTIES),
        (ResponseRequest, RESPONSE | {"tools": LIST}, "tools", _LENGTH),
        (ResponseRequest, RESPONSE | {"include": LIST}, "include", _LENGTH),
        (ResponseRequest, RESPONSE | {"input": LIST}, "input[0]", "invalid_type"),
        (UploadCompletion, {"part_ids": LIST}, "part_ids", _LENGTH),
    ],
    ids=lambda value: getattr(value, "__name__", "") if not isinstance(value, str) else value,
)
def test_a_million_elements_cost_no_million_errors(
    model: type[BaseModel], body: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        validate(model, body)

    assert (refused.value.param, refused.value.code) == (param, code)
    assert isinstance(refused.value.__cause__, ValidationError)
    assert refused.value.__cause__.error_count() <= 2  # of each kind that there may be


@pytest.mark.parametrize(
    ("metadata", "param", "code"),
    [
        ({str(number): "" for number in range(17)}, "metadata", _PROPERTIES),
        ({"a": 1}, "metadata.a", "invalid_type"),
        ({"a": "x" * 513}, "metadata.a", "string_above_max_length"),
        ({"x" * 65: "a"}, f"metadata.{'x' * 65}", "string_above_max_length"),
        ("a", "metadata", "invalid_type"),
    ],
    ids=["many", "a number", "a long value", "a long key", "a text"],
)
@pytest.mark.parametrize(
    ("model", "body"),
    [(NewBatch, NEW_BATCH), (ChatRequest, CHAT), (ResponseRequest, RESPONSE)],
)
def test_metadata_are_at_most_16_pairs_of_short_strings_everywhere(
    model: type[BaseModel], body: dict[str, Any], metadata: Any, param: str, code: str
) -> None:
    assert validate(model, body | {"metadata": {str(number): "" for number in range(16)}})
    with pytest.raises(BadRequest) as refused:
        validate(model, body | {"metadata": metadata})

    assert (refused.value.param, refused.value.code) == (param, code)
