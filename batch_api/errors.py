"""Every error that a client can see, in OpenAI's shape; and the one that an operator sees."""

from typing import Any


class Unusable(Exception):
    """A command can't run as it was called: one sentence for the operator, and exit code 2."""


class APIError(Exception):
    """An answer other than 2xx: `{"error": {"message", "type", "param", "code"}}`."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else type(self).code
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class BadRequest(APIError):
    status = 400
    type = "invalid_request_error"


class NotFound(APIError):
    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(APIError):
    status = 405
    type = "invalid_request_error"


class Conflict(APIError):
    """A state conflict. The SDK retries a 409 unless it is told that this is useless."""

    status = 409
    type = "invalid_request_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class TooLarge(APIError):
    status = 413
    type = "invalid_request_error"


class QuotaExceeded(APIError):
    """There is no room for this; to try again is useless until something is deleted."""

    status = 413
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class UnsupportedMediaType(APIError):
    status = 415
    type = "invalid_request_error"


class TooManyRequests(APIError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class OutOfSpace(APIError):
    """The disk is full; to try again at once is useless."""

    status = 507
    type = "server_error"
    code = "insufficient_storage"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class Unavailable(APIError):
    """Overloaded, or nobody there to answer: come back after `retry_after_seconds`."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after_seconds)})
