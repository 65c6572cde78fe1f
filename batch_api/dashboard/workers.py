"""`/workers`: how the upstreams stand with us, and what the workers tell of themselves.

Whoever is signed in may see it: it says nothing of what anybody asks them.
"""

from fastapi import Request, Response

from batch_api.dashboard.fleet import Fleet
from batch_api.dashboard.pages import Viewing, pages
from batch_api.upstreams import Stand

router = pages()


@router.get("/workers")
async def workers(request: Request, view: Viewing) -> Response:
    fleet: Fleet = request.app.state.fleet
    stands = [(stand, _circuit(stand)) for stand in view.parts.upstreams.stands]
    return view.page("workers.html", stands=stands, workers=await fleet.look())


def _circuit(stand: Stand) -> tuple[str, str]:
    """A word for the circuit, and its colour."""
    if stand.is_up:
        return ("up", "good") if not stand.rest_seconds else ("up, resting", "warn")
    return ("on trial", "warn") if stand.is_on_trial else ("down", "bad")
