"""Pages that are kept open over a busy server: do browser and server grow?

`python -m benchmarks.open_page --minutes 30`: the batches page and the activity page in Chromium,
over a server that always has batches to run, at a stand-in upstream. Prints a table, and by how
much each figure grows in an hour.
"""

import argparse
import asyncio
import itertools
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Self

import aiohttp
import msgspec
import psutil
from openai import OpenAI

from tests.server import Server, StandinProcess
from tests.standin import MODEL

_PAGES = ("/", "/activity")
_CHROMIUM = "/usr/bin/chromium"
_COMMANDS = ("Performance.enable", "HeapProfiler.collectGarbage", "Performance.getMetrics")
_LINES = 2000
_SAMPLE_SECONDS = 30.0
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    minutes: float
    list_heap_mib: float
    list_nodes: float
    activity_heap_mib: float
    activity_nodes: float
    browser_rss_mib: float
    server_rss_mib: float
    server_cpu_percent: float
    """Since the sample before."""


def main() -> None:
    minutes = _arguments().minutes
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            StandinProcess(folder, delay_ms=1000, jitter_ms=200, journal=False) as standin,
            Server(folder, standin.url) as server,
            server.client() as client,
        ):
            work = threading.Thread(target=_keep_busy, args=(client, stop))
            work.start()
            try:
                samples = _watch(server, folder, minutes=minutes)
            finally:
                stop.set()
                work.join()
    _print_growth(samples)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    return parser.parse_args()


def _keep_busy(client: OpenAI, stop: threading.Event) -> None:
    """One batch after the other; what is over is deleted, so that the disk is not what grows."""
    for number in itertools.count():
        if stop.is_set():
            return
        file = client.files.create(file=(f"{number}.jsonl", _input()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status != "completed" and not stop.wait(0.5):
            batch = client.batches.retrieve(batch.id)
        for id in (file.id, batch.output_file_id):
            if id is not None:
                client.files.delete(id)


def _input() -> bytes:
    message = {"role": "user", "content": "hello there " * 8}
    body = {"model": MODEL, "messages": [message]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return b"".join(
        msgspec.json.encode({"custom_id": f"row-{number}", **line}) + b"\n"
        for number in range(_LINES)
    )


def _watch(server: Server, folder: Path, *, minutes: float) -> list[Sample]:
    with ExitStack() as stack:
        windows = [
            stack.enter_context(Window(folder / f"browser-{number}", server.url + path))
            for number, path in enumerate(_PAGES)
        ]
        print(" ".join(f"{field.name:>18}" for field in fields(Sample)), flush=True)
        begun = time.monotonic()
        seen_at, cpu = begun, server.cpu_seconds()
        samples = []
        while time.monotonic() < begun + minutes * 60:
            time.sleep(_SAMPLE_SECONDS)
            now, cpu_now = time.monotonic(), server.cpu_seconds()
            (list_heap, list_nodes), (heap, nodes) = (window.heap_and_nodes() for window in windows)
            samples.append(
                Sample(
                    minutes=(now - begun) / 60,
                    list_heap_mib=list_heap,
                    list_nodes=list_nodes,
                    activity_heap_mib=heap,
                    activity_nodes=nodes,
                    browser_rss_mib=sum(window.rss_bytes() for window in windows) / _MIB,
                    server_rss_mib=psutil.Process(server.pid).memory_info().rss / _MIB,
                    server_cpu_percent=100 * (cpu_now - cpu) / (now - seen_at),
                )
            )
            seen_at, cpu = now, cpu_now
            print(" ".join(f"{figure:18.1f}" for figure in astuple(samples[-1])), flush=True)
    return samples


class Window:
    """A browser of its own with one page. Nothing is attached to it but while it is looked at:
    tools keep what a page loads, which would be taken for the page's growth.
    """

    def __init__(self, profile: Path, url: str) -> None:
        self._profile = profile
        self._url = url

    def __enter__(self) -> Self:
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-port=0"]
        self._process = subprocess.Popen(
            [_CHROMIUM, *options, f"--user-data-dir={self._profile}", self._url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = self._profile / "DevToolsActivePort"
        while not told.exists() or not told.read_text():
            time.sleep(0.1)
        self._tools = f"http://127.0.0.1:{told.read_text().split()[0]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def heap_and_nodes(self) -> tuple[float, float]:
        """The heap in MiB, after its garbage is collected."""
        metrics = asyncio.run(self._metrics())
        return metrics["JSHeapUsedSize"] / _MIB, metrics["Nodes"]

    async def _metrics(self) -> dict[str, float]:
        """By Chromium's DevTools protocol."""
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{self._tools}/json") as answer:
                targets = await answer.json(content_type=None)
            pages = [target for target in targets if target["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"]) as tools:
                for number, command in enumerate(_COMMANDS):
                    await tools.send_json({"id": number, "method": command})
                    while (told := await tools.receive_json()).get("id") != number:
                        pass
        return {metric["name"]: metric["value"] for metric in told["result"]["metrics"]}

    def rss_bytes(self) -> int:
        rss = 0
        process = psutil.Process(self._process.pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                rss += each.memory_info().rss
        return rss


def _print_growth(samples: list[Sample]) -> None:
    """Of the second half: what is loaded and cached at the beginning is no growth."""
    late = samples[len(samples) // 2 :]
    for field in fields(Sample)[1:]:
        points = [(sample.minutes / 60, getattr(sample, field.name)) for sample in late]
        print(f"{field.name:>18}: {_slope(points):+.2f} in an hour")


def _slope(points: list[tuple[float, float]]) -> float:
    """By least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


if __name__ == "__main__":
    main()
