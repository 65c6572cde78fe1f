"""The form in which an answer is asked for."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.body import Body
from batch_api.schemas.tools import Name


class JsonSchema(Body):
    """`strict` or not, a schema is always held."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool = False


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = Field(None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def _a_schema_is_given(
        cls, schema: JsonSchema | None, info: ValidationInfo
    ) -> JsonSchema | None:
        if schema is None and info.data.get("type") == "json_schema":
            raise PydanticCustomError("missing", "Field required")
        return schema
