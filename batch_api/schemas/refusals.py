"""Statuses that say: nobody, and at no time, would answer what this request asks."""

from http import HTTPStatus

REFUSALS = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""What is not allowed or not found there may be some day, and is none of them."""
