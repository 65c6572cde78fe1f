"""What no request may make an upstream do: fetch what a stranger names, or run his template.

Our own workers do neither; others do what a body says. Bodies are looked through, never changed.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from batch_api.errors import BadRequest

ANY_HOST = "*"

# A body that has none of these has nothing to find. Escapes and UTF-16 could hide the others.
_SIGNS = (b"url", b"uri", b"://", b"file:", b"chat_template", b"\\u", b"\\/", b"\0")

_LINK_KEY = re.compile(r"(^|_)(url|uri)s?$|(Url|URL|Uri|URI)s?$")
_MEDIA_KEYS = frozenset({"image", "images", "audio", "video", "videos"})
_LOOKS_LIKE_A_LINK = re.compile(r"\s*(file:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_WEB_LINK = re.compile(
    r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?([/?#][^\s\\]*)?", re.IGNORECASE
)
"""Stricter than URLs are: all that read one must see the same host in it."""

_ONLY_READ = frozenset(
    {
        *("metadata", "annotations", "arguments", "parameters"),
        *("schema", "input_schema", "guided_json", "json"),
    }
)
"""What is in these are labels, or was said before, or describes JSON: nobody fetches it."""

_SHOWN_CHARACTERS = 200

_Chain = tuple[Any, str] | None  # the way to a value, from its end


class _Object(tuple[tuple[str, Any], ...]):
    """With the keys that come twice: who reads the body next may take the other one."""

    __slots__ = ()


def check_body(raw: bytes, media_hosts: Collection[str]) -> None:
    """Raises BadRequest. Takes a while for long bodies that speak of links."""
    if not any(sign in raw for sign in _SIGNS):
        return
    for chain, key, value in _members(_read(raw)):
        if key == "chat_template" and value is not None:
            raise _refusal(chain, "a template is code", "unsupported_parameter")
        for link in _links(key, value):
            if not _may_be_followed(link, media_hosts):
                reason = (
                    "links are only followed to hosts that its operator allows; send a data: URL"
                )
                raise _refusal(chain, reason, "link_not_allowed")


def _read(raw: bytes) -> Any:
    """As leniently as anybody may read it."""
    text = raw.decode(json.detect_encoding(raw), errors="replace")
    try:
        return json.loads(
            text, strict=False, object_pairs_hook=_Object, parse_int=_unread, parse_float=_unread
        )
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body of your request is not valid JSON.") from error


def _unread(_number: str) -> None:
    """Python takes long for long numbers, and refuses the longest."""


def _members(body: Any) -> Iterator[tuple[_Chain, str, Any]]:
    """Of all objects in it."""
    unseen: list[tuple[_Chain, Any]] = [(None, body)]
    while unseen:
        chain, value = unseen.pop()
        if isinstance(value, _Object):
            for key, member in value:
                here = (chain, f".{key}")
                yield here, key, member
                if key not in _ONLY_READ:
                    unseen.append((here, member))
        elif isinstance(value, list):
            unseen += (((chain, f"[{number}]"), each) for number, each in enumerate(value))


def _links(key: str, value: Any) -> Iterator[str]:
    texts = [text for text in (value if isinstance(value, list) else [value]) if type(text) is str]
    if _LINK_KEY.search(key):
        yield from texts
    elif key in _MEDIA_KEYS:
        yield from (text for text in texts if _LOOKS_LIKE_A_LINK.match(text))


def _may_be_followed(link: str, hosts: Collection[str]) -> bool:
    if link[:5].lower() == "data:":
        return True
    web = _WEB_LINK.fullmatch(link)
    return web is not None and (ANY_HOST in hosts or web[1].lower().strip("[]") in hosts)


def _refusal(chain: _Chain, reason: str, code: str) -> BadRequest:
    param = _path(chain)
    return BadRequest(f"This server does not pass on '{param}': {reason}.", param=param, code=code)


def _path(chain: _Chain) -> str:
    steps = []
    while chain is not None:
        chain, step = chain
        steps.append(step[:_SHOWN_CHARACTERS])
    return "".join(reversed(steps)).removeprefix(".")[:_SHOWN_CHARACTERS]
