"""`/static`: what pages are made of, beside their text. All of it comes from this server."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from batch_api.errors import NotFound

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent / "static"
_FOR_EVER = "public, max-age=31536000, immutable"
_MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@router.api_route("/static/{path:path}", methods=["GET", "HEAD"])
def static(path: str, v: str = "", if_none_match: Annotated[str, Header()] = "") -> Response:
    """An address with its `version` in it is for ever; others are to be asked for again."""
    content = contents().get(path)
    if content is None:
        raise NotFound(f"There is no {path[:100]!r} here.")
    tag = f'"{version(path)}"'
    is_for_ever = v == version(path)
    headers = {"etag": tag, "cache-control": _FOR_EVER if is_for_ever else "no-cache"}
    if tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_MEDIA_TYPES[Path(path).suffix], headers=headers)


@cache
def contents() -> dict[str, bytes]:
    """By path; nothing else is ever served."""
    return {
        file.relative_to(_FOLDER).as_posix(): file.read_bytes()
        for file in _FOLDER.rglob("*")
        if file.suffix in _MEDIA_TYPES
    }


@cache
def version(path: str) -> str:
    return hashlib.sha256(contents()[path]).hexdigest()[:16]


def address(path: str) -> str:
    """Raises KeyError."""
    return f"/static/{path}?v={version(path)}"
