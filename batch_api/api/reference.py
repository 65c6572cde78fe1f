"""`/docs`: the OpenAPI document for people. Everything it needs comes from this server."""

from pathlib import Path

from fastapi import APIRouter, Response

router = APIRouter(prefix="/docs", include_in_schema=False)

_FOLDER = Path(__file__).parent / "swagger_ui"
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


@router.get("")
def page() -> Response:
    headers = {"content-security-policy": _POLICY}
    return Response(_content("index.html"), media_type="text/html", headers=headers)


@router.get("/start.js")
def start() -> Response:
    return Response(_content("start.js"), media_type="text/javascript")


@router.get("/swagger-ui-bundle.js")
def script() -> Response:
    return _gzipped("swagger-ui-bundle.js", "text/javascript")


@router.get("/swagger-ui.css")
def style() -> Response:
    return _gzipped("swagger-ui.css", "text/css")


def _gzipped(name: str, media_type: str) -> Response:
    """As every browser takes it."""
    headers = {"content-encoding": "gzip"}
    return Response(_content(f"{name}.gz"), media_type=media_type, headers=headers)


def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
