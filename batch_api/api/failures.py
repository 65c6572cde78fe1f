"""What can go wrong with an upstream, as a client of ours hears it."""

from http import HTTPStatus

from batch_api.errors import APIError, Unavailable
from batch_api.unusable import AnswerTooLarge, UpstreamAway, UpstreamBroke, UpstreamUnusable


class BadGateway(APIError):
    status = 502
    code = "upstream_broke"


def check_is_for_clients(status: int) -> None:
    """A redirect leads nowhere for our clients, and a key that an upstream wants is ours to send.

    Raises BadGateway.
    """
    is_about_us = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if is_about_us or not (status // 100 == 2 or status // 100 >= 4):
        raise BadGateway(f"The upstream answered {status}, which is not for you.")


def failure_of(error: UpstreamUnusable) -> APIError:
    if isinstance(error, UpstreamAway):
        return Unavailable("The upstream that may have this can't be asked now.")
    if isinstance(error, AnswerTooLarge):
        useless = {"x-should-retry": "false"}
        message = "The upstream's answer is too large."
        return BadGateway(message, code="answer_too_large", headers=useless)
    if isinstance(error, UpstreamBroke):
        return BadGateway("The upstream broke off before its answer was whole.")
    return Unavailable("No upstream can be reached.")
