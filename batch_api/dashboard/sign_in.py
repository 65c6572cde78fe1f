"""`/sign-in`: a key for a session. `/sign-out` ends it."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse

from batch_api.api.deps import IncomingBody, SessionToken, SignedIn
from batch_api.api.keys import Keyring
from batch_api.api.sessions import COOKIE, Sessions
from batch_api.dashboard.pages import give_session, pages, public_page
from batch_api.envelope import read_whole

router = pages()

_MOST_BYTES = 8192
_MOST_CHARACTERS = 2000

Next = Annotated[str, Query(max_length=_MOST_CHARACTERS)]


@router.get("/sign-in")
async def sign_in(request: Request, tenant: SignedIn, next: Next = "/") -> Response:
    if tenant is not None:
        return _to(next)
    return public_page(request, "sign_in.html", next=next, is_wrong=False)


@router.post("/sign-in")
async def start_session(request: Request, body: IncomingBody) -> Response:
    form = parse_qs((await read_whole(body.chunks, _MOST_BYTES)).decode(errors="replace"))
    target = form.get("next", ["/"])[0][:_MOST_CHARACTERS]
    keyring: Keyring = request.app.state.keyring
    sessions: Sessions = request.app.state.sessions
    key = keyring.find(form.get("key", [""])[0].strip().encode())
    if key is None:
        return public_page(request, "sign_in.html", status=403, next=target, is_wrong=True)
    answer = _to(target)
    is_secure = request.headers.get("origin", "").startswith("https:")
    give_session(answer, sessions.start(key, is_secure=is_secure))
    return answer


@router.post("/sign-out")
async def end_session(request: Request, token: SessionToken) -> Response:
    sessions: Sessions = request.app.state.sessions
    await sessions.end(token)
    answer = _to("/sign-in")
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _to(target: str) -> RedirectResponse:
    """Never to another site, whoever wrote the link."""
    is_ours = target.startswith("/") and not target.startswith(("//", "/\\"))
    return RedirectResponse(target if is_ours else "/", status_code=303)
