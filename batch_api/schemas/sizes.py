"""Objects of bounded size, whose entries are looked at only if there are not too many.

pydantic's own bound is enough for arrays; of an object it first checks every entry, and makes an
error of each: many seconds for a million.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

MAX_METADATA = 16


def at_most(entries: int) -> BeforeValidator:
    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > entries:
            raise _too_long(len(given), entries)
        return given

    return BeforeValidator(check)


def _too_long(size: int, most: int) -> PydanticKnownError:
    facts = {"field_type": "Dictionary", "max_length": most, "actual_length": size}
    return PydanticKnownError("too_long", facts)


_Key = Annotated[str, Field(max_length=64)]
_Value = Annotated[str, Field(max_length=512)]

Metadata = Annotated[dict[_Key, _Value], Field(max_length=MAX_METADATA), at_most(MAX_METADATA)]
