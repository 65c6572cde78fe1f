"""What upstreams say: as little of it as has to be understood."""

from typing import Annotated, Any

import msgspec

from batch_api.schemas.bad_json import BAD_JSON

# No answer has more; a sum over all answers still fits the database.
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**32)]

_LISTS = {
    "/v1/chat/completions": "choices",
    "/v1/completions": "choices",
    "/v1/embeddings": "data",
    "/v1/responses": "output",
}
"""What an answer is not one without."""


class TokenDetails(msgspec.Struct):
    cached_tokens: _Tokens | None = None
    reasoning_tokens: _Tokens | None = None


class Tokens(msgspec.Struct):
    """Chat's names and those of responses."""

    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None
    input_tokens_details: TokenDetails | None = None
    output_tokens_details: TokenDetails | None = None


class Said(msgspec.Struct):
    """A JSON object. What is odd in it, but does no harm, is left out."""

    model: str | None = None
    usage: Tokens | None = None
    choices: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None
    output: list[msgspec.Raw] | None = None

    def answers(self, path: str) -> bool:
        """Whether it has what an answer of that endpoint must have."""
        needed = _LISTS.get(path)
        return needed is None or getattr(self, needed) is not None


class _ModelList(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[dict[str, Any]]


_decode = msgspec.json.Decoder(Said).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_models = msgspec.json.Decoder(_ModelList).decode


def said(raw: bytes) -> Said | None:
    """None if it is no JSON object."""
    try:
        raw.decode()
        return _decode(raw)
    except msgspec.ValidationError:
        return _without_oddities(raw)
    except BAD_JSON:
        return None


def model_objects(raw: bytes) -> list[dict[str, Any]] | None:
    """None if it is no list of models."""
    try:
        models = _decode_models(raw).data
    except BAD_JSON:
        return None
    return [model for model in models if isinstance(model.get("id"), str)]


def _without_oddities(raw: bytes) -> Said | None:
    """The fields that are as they should be."""
    try:
        fields = _decode_fields(raw)
    except BAD_JSON:
        return None
    kept = Said()
    for name in Said.__struct_fields__:
        if name in fields and (one := _alone(name, fields[name])) is not None:
            setattr(kept, name, getattr(one, name))
    return kept


def _alone(name: str, value: msgspec.Raw) -> Said | None:
    try:
        return _decode(msgspec.json.encode({name: value}))
    except BAD_JSON:
        return None
