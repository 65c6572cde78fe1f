"""Functions that a model may call, and what a request says about calling them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.body import Body

MAX_TOOLS = 128
MAX_CALLS = 128  # of one message
NAME = r"^[a-zA-Z0-9_-]{1,64}$"

Name = Annotated[str, Field(pattern=NAME)]


class Function(Body):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class Tool(Body):
    type: Literal["function", "custom"]
    function: Function | None = Field(None, validate_default=True)

    @field_validator("function")
    @classmethod
    def _a_function_is_described(
        cls, function: Function | None, info: ValidationInfo
    ) -> Function | None:
        if function is None and info.data.get("type") == "function":
            raise PydanticCustomError("missing", "Field required")
        return function


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=MAX_TOOLS)


def _as_object(choice: Any) -> Any:
    return {"type": choice} if isinstance(choice, str) else choice


class ToolChoiceObject(Body):
    """`"auto"` is read as `{"type": "auto"}`."""

    type: Literal["none", "auto", "required", "function", "allowed_tools", "custom"]
    function: NamedFunction | None = Field(None, validate_default=True)
    allowed_tools: AllowedTools | None = Field(None, validate_default=True)

    @field_validator("function", "allowed_tools")
    @classmethod
    def _its_own_part_is_there(cls, part: Any, info: ValidationInfo) -> Any:
        if part is None and info.data.get("type") == info.field_name:
            raise PydanticCustomError("missing", "Field required")
        return part


ToolChoice = Annotated[ToolChoiceObject, BeforeValidator(_as_object)]


class FunctionCall(Body):
    """What a model wrote: `arguments` is a text that should be a JSON object."""

    name: str
    arguments: str = ""


class ToolCall(Body):
    id: str
    type: Literal["function", "custom"] = "function"
    function: FunctionCall | None = Field(None, validate_default=True)

    @field_validator("function")
    @classmethod
    def _a_function_is_named(
        cls, function: FunctionCall | None, info: ValidationInfo
    ) -> FunctionCall | None:
        if function is None and info.data.get("type") == "function":
            raise PydanticCustomError("missing", "Field required")
        return function


def _legacy_as_object(choice: Any) -> Any:
    """The deprecated `function_call`: `"auto"`, `"none"` or `{"name": …}`."""
    if isinstance(choice, dict):
        return {"type": "function", "function": choice}
    return _as_object(choice)


LegacyChoice = Annotated[ToolChoiceObject, BeforeValidator(_legacy_as_object)]
