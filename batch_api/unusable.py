"""What can go wrong with an upstream."""


class UpstreamUnusable(Exception):
    """An upstream gave no whole answer."""


class UpstreamUnreachable(UpstreamUnusable):
    """No connection could be made, or nobody seems to be there: nothing was sent."""

    def __init__(self, message: str, rest_seconds: float = 0.0) -> None:
        """`rest_seconds`: until one of them can be asked again."""
        super().__init__(message)
        self.rest_seconds = rest_seconds


class TooLate(UpstreamUnusable):
    """It waited for a place, and shall not go any more: nothing was sent."""


class UpstreamAway(UpstreamUnusable):
    """Who was asked has no such model or route, and who may have it can't be asked now."""


class UpstreamBroke(UpstreamUnusable):
    """The connection broke, or the time was over, after the request had been sent."""

    def __init__(self, message: str, *, had_company: bool = False, had_begun: bool = True) -> None:
        """`had_company`: other requests were there meanwhile, and one may have been the cause.

        `had_begun`: some of the answer had come.
        """
        super().__init__(message)
        self.had_company = had_company
        self.had_begun = had_begun


class UpstreamTimedOut(UpstreamBroke):
    """The time was over."""


class AnswerTooLarge(UpstreamBroke):
    """It had more bytes than are taken."""
