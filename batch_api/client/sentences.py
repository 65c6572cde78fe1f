"""What goes wrong with a server, as sentences."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import openai

from batch_api.errors import Unusable
from batch_api.in_words import error_in_words


class Away(Unusable):
    """The server can't be reached, has an error or too much to do: it may be back in a while."""


class Missing(Unusable):
    """The server has no such thing, or no such route."""


@contextmanager
def in_sentences(url: str) -> Iterator[None]:
    """Raises Unusable for what the SDK raises, and for what it lets through of its transport."""
    try:
        yield
    except openai.APIConnectionError as error:
        raise Away(f"Can't reach {url}: {error_in_words(error.__cause__ or error)}.") from error
    except (httpx2.RequestError, ssl.SSLError) as error:
        raise Away(f"{url} broke off: {error_in_words(error)}.") from error
    except (openai.InternalServerError, openai.RateLimitError) as error:
        raise Away(f"{url} answers {error.status_code}: {_message(error)}") from error
    except openai.NotFoundError as error:
        raise Missing(_message(error)) from error
    except openai.AuthenticationError as error:
        told = f"{url} answers 401: {_message(error)}"
        raise Unusable(f"{told} Name a key with OPENAI_API_KEY or --api-key.") from error
    except openai.APIStatusError as error:
        raise Unusable(f"{url} answers {error.status_code}: {_message(error)}") from error
    except (openai.APIResponseValidationError, json.JSONDecodeError) as error:
        raise Unusable(f"{url} does not answer as a server for batches does: {error}.") from error
    except openai.OpenAIError as error:
        raise Unusable(str(error)) from error


def _message(error: openai.APIStatusError) -> str:
    told = error.body.get("message") if isinstance(error.body, dict) else None
    return str(told or error.message)
