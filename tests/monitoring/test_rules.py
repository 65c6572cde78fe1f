"""The alert rules and the dashboard, by themselves."""

import subprocess
from pathlib import Path

import pytest

from tests.monitoring.rules import ALERTS, MONITORING, alerts, metrics_in, panels

_TESTS = Path(__file__).parent / "alerts_test.yml"


@pytest.mark.parametrize("command", [("check", "rules", ALERTS), ("test", "rules", _TESTS)])
def test_alerts_come_when_they_are_due(command: tuple[str, str, Path]) -> None:
    """For `test`, what is due when stands in the file."""
    checked = subprocess.run(["promtool", *command], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_takes_its_configuration() -> None:
    """But for the key, which is not there yet."""
    config = MONITORING / "prometheus.yml"
    command = ["promtool", "check", "config", "--syntax-only", str(config)]
    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_somebody_is_woken_for_five_things_and_told_what_to_do() -> None:
    assert len(alerts()) == 5
    for alert in alerts():
        assert alert["labels"] == {"severity": "page"}
        assert alert["annotations"].keys() == {"summary", "description"}
        tested = _TESTS.read_text().count(f'alertname="{alert["alert"]}"')
        assert tested, f"{alert['alert']} is in no test"


def test_panels_have_titles_units_and_places_of_their_own() -> None:
    shown = panels()

    assert len({panel["id"] for panel in shown}) == len(shown)
    assert len({panel["title"] for panel in shown}) == len(shown)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in shown}
    assert len(places) == len(shown)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in shown)
    assert all(target["expr"] for panel in shown for target in panel["targets"])


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (a, b) (rate(some_total{x=~"y"}[5m])) > 0.1', ["some_total"]),
        ("histogram_quantile(0.5, sum by (le) (rate(vllm:a_bucket[1d])))", ["vllm:a_bucket"]),
        ("one / two > three and four", ["one", "two", "three", "four"]),
    ],
)
def test_the_names_in_an_expression_are_found(expression: str, names: list[str]) -> None:

    assert list(metrics_in(expression)) == names
