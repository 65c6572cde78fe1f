"""How workers are looked at: real servers on sockets, and a clock that is turned."""

import asyncio
import json
import socket

import pytest

from batch_api.dashboard.fleet import Fleet
from tests.clock import TurnableClock
from tests.dashboard.workers import answering, vllm


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


async def test_speeds_are_those_between_two_looks(clock: TurnableClock) -> None:
    pages = {"/metrics": vllm(running=4, tokens=1000), "/health": ""}
    with answering(pages) as url:
        fleet = Fleet([f"{url}/v1"], clock)
        (first,) = await fleet.look()
        pages["/metrics"] = vllm(running=4, tokens=1500)
        (soon,) = await fleet.look()
        clock.steady += 10
        (later,) = await fleet.look()

    assert (first.url, first.state, first.output_tokens_per_second) == (url, "ready", None)
    assert soon == first, "it was asked again too early"
    assert later.output_tokens_per_second == pytest.approx(50.0)


async def test_a_worker_that_began_anew_has_no_negative_speed(clock: TurnableClock) -> None:
    pages = {"/metrics": vllm(tokens=1000)}
    with answering(pages) as url:
        fleet = Fleet([url], clock)
        await fleet.look()
        pages["/metrics"] = vllm(tokens=10)
        clock.steady += 10
        (worker,) = await fleet.look()

    assert worker.output_tokens_per_second is None


async def test_many_who_look_at_once_ask_once(clock: TurnableClock) -> None:
    asked = []

    class Counted(dict[str, str]):
        def get(self, path: str, default: str | None = None) -> str | None:  # type: ignore[override]
            asked.append(path)
            return super().get(path, default)

    with answering(Counted({"/metrics": vllm()})) as url:
        fleet = Fleet([url], clock)
        looks = await asyncio.gather(*(fleet.look() for _ in range(20)))

    assert sorted(asked) == ["/health", "/metrics"]
    assert all(look is looks[0] for look in looks)


async def test_our_own_workers_say_what_they_run_on(clock: TurnableClock) -> None:
    health = {"status": "loading", "model": "demo", "device": "cpu", "dtype": "float32"}
    with answering({"/health": json.dumps(health)}) as url:
        (worker,) = await Fleet([url], clock).look()

    assert (worker.state, worker.models, worker.device) == ("loading", ["demo"], "cpu")


async def test_a_dead_worker_is_down_and_keeps_no_other_from_telling(
    clock: TurnableClock,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://name:secret@127.0.0.1:{closed.getsockname()[1]}"
        with answering({"/metrics": vllm()}) as url:
            down, up = await Fleet([dead, url], clock).look()

    assert (down.state, up.state) == ("down", "ready")
    assert "secret" not in repr(down)


async def test_a_page_without_an_end_is_given_up(clock: TurnableClock) -> None:
    with answering({"/metrics": vllm() + "# x\n" * 300_000}) as url:
        (worker,) = await Fleet([url], clock).look()

    assert worker.state == "answering"
    assert not worker.vitals.tells_anything


async def test_health_that_is_nested_without_end_tells_nothing(clock: TurnableClock) -> None:
    with answering({"/metrics": vllm(), "/health": '{"a":' + "[" * 100_000}) as url:
        (worker,) = await Fleet([url], clock).look()

    assert (worker.state, worker.device) == ("ready", None)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxy_without_a_worker_behind_it_is_down(
    clock: TurnableClock, status: int
) -> None:
    with answering({}, otherwise=status) as url:
        (worker,) = await Fleet([url], clock).look()

    assert worker.state == "down"
