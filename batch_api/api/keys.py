"""Who may call `/v1`: everybody, or who knows the key of the settings."""

import hmac
from typing import Annotated

from fastapi import Header

from batch_api.api.deps import Parts
from batch_api.errors import APIError

_SCHEME = "bearer"


class InvalidKey(APIError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"www-authenticate": "Bearer"})


async def check_key(
    parts: Parts, authorization: Annotated[str, Header(include_in_schema=False)] = ""
) -> None:
    """Raises InvalidKey, before anything of the body is read."""
    key = parts.settings.api_key
    if key is None:
        return
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != _SCHEME:
        raise InvalidKey("You didn't provide an API key: send it as 'Authorization: Bearer KEY'.")
    if not hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode()):
        raise InvalidKey("Incorrect API key provided.")
