"""What the alert rules and the dashboard ask Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "batch-api.json"

_LABELS_AND_TEXTS = re.compile(r'"[^"]*"|\b(?:by|without)\s*\([^)]*\)|\[[^\]]*\]|[{][^}]*[}]')
_ROUTES = re.compile(r'route=~"([^"]*)"')
_METRIC = re.compile(r"\b(?!(?:and|or|unless)\b)[a-z_][\w:]*\b(?!\s*\()")


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    """Of the dashboard, without the headings."""
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def named_in_alerts() -> set[str]:
    return {name for alert in alerts() for name in metrics_in(alert["expr"])}


def named_in_dashboard() -> set[str]:
    return {name for expression in _asked_by_panels() for name in metrics_in(expression)}


def timed_routes() -> set[str]:
    """Regular expressions, of the panels that show how long HTTP takes."""
    timed = [it for it in _asked_by_panels() if re.search("batch_api_http_.*_seconds", it)]
    return {_ROUTES.findall(it)[0] if _ROUTES.search(it) else ".*" for it in timed}


def metrics_in(expression: str) -> Iterator[str]:
    """The names of series in PromQL."""
    yield from _METRIC.findall(_LABELS_AND_TEXTS.sub(" ", expression))


def _asked_by_panels() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
