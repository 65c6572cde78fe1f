"""Who may call `/v1`: everybody, or who knows the key of the settings."""

import hmac
from typing import Annotated

from fastapi import Header

from batch_api.api.deps import Parts
from batch_api.errors import APIError

_SCHEME = "Bearer "


class InvalidKey(APIError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


async def check_key(
    parts: Parts, authorization: Annotated[str, Header(include_in_schema=False)] = ""
) -> None:
    """Raises InvalidKey, before anything of the body is read."""
    key = parts.settings.api_key
    if key is None:
        return
    if not authorization.startswith(_SCHEME):
        raise InvalidKey("You didn't provide an API key: send it as 'Authorization: Bearer KEY'.")
    given = authorization.removeprefix(_SCHEME).strip()
    if not hmac.compare_digest(given.encode(), key.get_secret_value().encode()):
        raise InvalidKey("Incorrect API key provided.")
