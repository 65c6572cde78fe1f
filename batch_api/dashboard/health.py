"""`/condition`: the dot in the header, which says in a word or two what `/ready` says at length."""

import json
from typing import Any

from fastapi import Response

from batch_api.api.deps import NobodysParts, Trouble
from batch_api.api.health import ready
from batch_api.dashboard.pages import Viewing, pages

router = pages()

_WORDS = {
    ("store", "troubled"): "writing fails",
    ("disk", "low"): "the disk is low",
    ("disk", "short"): "the disk is full",
    ("upstreams", "some"): "not all workers answer",
}
"""For what is wrong with something that works all the same."""


@router.get("/condition")
async def condition(view: Viewing, parts: NobodysParts, trouble: Trouble) -> Response:
    report = json.loads(bytes((await ready(parts, trouble)).body))
    return view.page("condition.html", condition=_condition(report), reasons=_reasons(report))


def _condition(report: dict[str, Any]) -> str:
    if report["status"] != "ready":
        return "not ready"
    return "degraded" if report["degraded"] else "ready"


def _reasons(report: dict[str, Any]) -> list[str]:
    return [_reason(name, report["checks"][name]["status"]) for name in report["degraded"]]


def _reason(check: str, status: str) -> str:
    return _WORDS.get((check, status), f"{check}: {status}")
