"""What every page has: a route that answers with pages, errors too, and what it is made with."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from batch_api import __version__
from batch_api.api.deps import AllParts, NobodysParts, SessionToken, SignedIn
from batch_api.api.keys import Keyring
from batch_api.api.sessions import COOKIE, Session, Sessions
from batch_api.dashboard.rendering import ENVIRONMENT
from batch_api.errors import APIError, BadRequest
from batch_api.store.database import Database
from batch_api.store.tenancy import DEFAULT_TENANT

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cache-control": "no-store",
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class SignInNeeded(Exception):
    pass


class Page(APIRoute):
    """Answers errors with pages, and sends whoever has to sign in there."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        if self.methods and "GET" in self.methods:
            self.methods.add("HEAD")

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_or_explain(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeeded:
                return _to_sign_in(request)
            except RequestValidationError:
                return explain(request, BadRequest("This address is not right."))
            except APIError as error:
                return explain(request, error)

        return handle_or_explain


def pages() -> APIRouter:
    return APIRouter(route_class=Page, include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a page is made with. `parts.database` shows what the visitor's tenant has."""

    parts: AllParts
    tenant: str
    needs_key: bool
    renewed: Session | None
    """The visitor's, if it is to go on for longer."""
    request: Request

    @property
    def is_operator(self) -> bool:
        """Who sees what is not one tenant's own, as everybody does while there are no keys."""
        return self.tenant == DEFAULT_TENANT

    def page(self, template: str, *, status: int = 200, **facts: Any) -> HTMLResponse:
        """The whole page; of one that is open already, and only asks what has changed, the part
        that lives.
        """
        page = _rendered(
            self.request,
            template,
            status=status,
            tenant=self.tenant,
            is_operator=self.is_operator,
            needs_key=self.needs_key,
            now=self.parts.clock.now(),
            **facts,
        )
        if self.renewed is not None:
            give_session(page, self.renewed)
        return page


async def view_of(
    request: Request, parts: NobodysParts, tenant: SignedIn, token: SessionToken
) -> View:
    """Raises SignInNeeded."""
    if tenant is None:
        raise SignInNeeded
    database: Database = request.app.state.database
    keyring: Keyring = request.app.state.keyring
    sessions: Sessions = request.app.state.sessions
    view = View(
        parts=replace(parts, database=database.of(tenant)),
        tenant=tenant,
        needs_key=keyring.is_needed,
        renewed=sessions.renewed(token),
        request=request,
    )
    request.state.view = view
    return view


Viewing = Annotated[View, Depends(view_of)]


def give_session(answer: Response, session: Session) -> None:
    answer.set_cookie(
        COOKIE,
        session.token,
        max_age=session.seconds,
        httponly=True,
        samesite="strict",
        secure=session.is_secure,
    )


def public_page(request: Request, template: str, *, status: int = 200, **facts: Any) -> Response:
    """For whoever has not signed in."""
    return _rendered(request, template, status=status, tenant=None, needs_key=True, **facts)


def _rendered(request: Request, template: str, *, status: int, **facts: Any) -> HTMLResponse:
    is_update = request.headers.get("hx-request") == "true"
    text = ENVIRONMENT.get_template(template).render(
        layout="update.html" if is_update else "layout.html",
        path=request.url.path,
        address=_address(request),
        version=__version__,
        **facts,
    )
    return HTMLResponse(text, status_code=status, headers=_HEADERS)


def explain(request: Request, error: APIError) -> Response:
    """A page that tells an error; with what other pages have, once it is known who asks."""
    view: View | None = getattr(request.state, "view", None)
    page_of = view.page if view else partial(public_page, request)
    page = page_of(
        "problem.html",
        status=error.status,
        title=HTTPStatus(error.status).phrase,
        reason=str(error),
    )
    page.headers.update(error.headers)
    return page


def _to_sign_in(request: Request) -> Response:
    if request.headers.get("hx-request") == "true":
        return Response(headers={"hx-refresh": "true", **_HEADERS})
    target = request.url_for("sign_in").include_query_params(next=_address(request))
    return RedirectResponse(f"{target.path}?{target.query}", status_code=303, headers=_HEADERS)


def _address(request: Request) -> str:
    """Within this server."""
    url = request.url
    return f"{url.path}?{url.query}" if url.query else url.path
