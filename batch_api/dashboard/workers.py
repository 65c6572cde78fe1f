"""`/workers`: how the upstreams stand with us, and what the workers tell of themselves.

Where they are and how much they do is the operator's to see; others see models, and whether they
are ready.
"""

from fastapi import Request, Response

from batch_api.dashboard.fleet import Fleet
from batch_api.dashboard.pages import Viewing, pages
from batch_api.upstreams import Facts

router = pages()


@router.get("/workers")
async def workers(request: Request, view: Viewing) -> Response:
    fleet: Fleet = request.app.state.fleet
    upstreams = [(facts, _circuit(facts)) for facts in view.parts.upstreams.facts()]
    return view.page("workers.html", upstreams=upstreams, workers=await fleet.look())


def _circuit(facts: Facts) -> tuple[str, str]:
    """A word for the circuit, and its colour."""
    if facts.is_up:
        return ("up", "good") if not facts.rest_seconds else ("up, resting", "warn")
    if facts.is_starting:
        return "starting", "warn"
    return ("on trial", "warn") if facts.is_on_trial else ("down", "bad")
