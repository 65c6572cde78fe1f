"""`python -m tests.worker.fake_worker --port N`: the worker's process around the fake engine."""

import sys
from argparse import ArgumentParser
from threading import Event
from typing import TYPE_CHECKING

from batch_api import logs
from batch_api.commands.listening import bind
from batch_api.commands.worker import run_worker
from batch_api.worker.parent import exit_with_parent
from tests.worker.fake_engine import FakeEngine

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine


def _load_for_ever() -> "Engine":
    Event().wait()
    raise AssertionError("unreachable")


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grace-seconds", type=float, default=30)
    parser.add_argument("--loads-for-ever", action="store_true")
    parser.add_argument("--exit-with-parent", action="store_true")
    given = parser.parse_args()
    logs.configure("info")
    if given.exit_with_parent:
        exit_with_parent()
    with bind("127.0.0.1", given.port) as listener:
        return run_worker(
            _load_for_ever if given.loads_for_ever else lambda: FakeEngine().as_engine(),
            model="fake",
            listener=listener,
            max_waiting=512,
            grace_seconds=given.grace_seconds,
        )


if __name__ == "__main__":
    sys.exit(main())
