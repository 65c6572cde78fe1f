"""What the batch API costs: lines per second beside a bare client, and memory as batches grow.

Upload, validate, dispatch, store, write and download, in front of a stand-in upstream that answers
at once. Run `python -m benchmarks.control_plane --help`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import msgspec
from openai import OpenAI
from openai.types import Batch

from benchmarks.bare_client import LIBRARIES, PATH
from tests.server import Server, StandinProcess
from tests.standin import MODEL, answer_to

_LINE_BYTES = 400
_POLL_SECONDS = 0.1
_GOAL_RATIO = 0.35
_GOAL_GROWTH_BYTES = 100e6
_FINAL = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class BareRun:
    lines: int
    seconds: float
    cpu_seconds: float

    @property
    def lines_per_second(self) -> float:
        return self.lines / self.seconds


@dataclass(frozen=True, slots=True)
class Run:
    """One batch on a fresh server: the seconds of each part, the server's CPU and its peak."""

    lines: int
    upload_seconds: float
    batch_seconds: float
    download_seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def lines_per_second(self) -> float:
        return self.lines / (self.upload_seconds + self.batch_seconds + self.download_seconds)


@dataclass(frozen=True, slots=True)
class Turn:
    bare: BareRun
    ours: Run

    @property
    def ratio(self) -> float:
        return self.ours.lines_per_second / self.bare.lines_per_second


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Response(msgspec.Struct):
    status_code: int
    body: _Completion


class _OutputLine(msgspec.Struct):
    custom_id: str
    response: _Response


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name, _standin(Path(name)) as standin:
        bench = Bench(Path(name), standin.url, options.connections)
        result: dict[str, object] = {"machine": _machine(), "options": vars(options)}
        if options.compare_clients:
            result["clients"] = compare_clients(bench, options.lines, options.turns)
        if options.turns:
            result["turns"] = compare_with_bare(bench, options.lines, options.turns)
        if options.sizes:
            result["sizes"] = measure_memory(bench, options.sizes)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2, default=str) + "\n")


class Bench:
    """Makes inputs, and runs them bare or through a fresh server."""

    def __init__(self, folder: Path, upstream: str, connections: int) -> None:
        self._folder = folder
        self._upstream = upstream
        self._connections = connections

    def bare(self, lines: int, library: str = "aiohttp") -> BareRun:
        source = self._input(lines)
        command = [sys.executable, "-m", "benchmarks.bare_client", "--url", self._upstream]
        command += ["--input", str(source), "--connections", str(self._connections)]
        command += ["--library", library]
        seconds, cpu_seconds = map(float, subprocess.check_output(command, timeout=600).split())
        return BareRun(lines, seconds, cpu_seconds)

    def ours(self, lines: int) -> Run:
        source = self._input(lines)
        settings = {"max_in_flight": self._connections, "max_batch_lines": max(lines, 50_000)}
        with (
            tempfile.TemporaryDirectory(dir=self._folder) as name,
            Server(Path(name), self._upstream, settings=settings) as server,
            server.client() as client,
        ):
            return run_batch(client, server, source, lines)

    def _input(self, lines: int) -> Path:
        path = self._folder / f"{lines}.jsonl"
        if not path.exists():
            with path.open("w") as file:
                file.writelines(_input_line(number) for number in range(lines))
        return path


def run_batch(client: OpenAI, server: Server, source: Path, lines: int) -> Run:
    began_cpu = server.cpu_seconds()
    began = time.perf_counter()
    with source.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    created_at = time.perf_counter()
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=PATH, completion_window="24h")
    batch = _wait(client, batch)
    final_at = time.perf_counter()
    assert batch.output_file_id, batch
    output = client.files.content(batch.output_file_id).read()
    ended = time.perf_counter()
    check_output(output, lines)
    return Run(
        lines=lines,
        upload_seconds=created_at - began,
        batch_seconds=final_at - created_at,
        download_seconds=ended - final_at,
        cpu_seconds=server.cpu_seconds() - began_cpu,
        peak_bytes=server.peak_memory_bytes(),
    )


def check_output(output: bytes, lines: int) -> None:
    """Each line once, in order, with its own answer."""
    decoder = msgspec.json.Decoder(_OutputLine)
    answers = output.split(b"\n")
    assert answers.pop() == b""
    assert len(answers) == lines, f"{len(answers)} lines came back"
    for number, line in enumerate(answers):
        answer = decoder.decode(line)
        assert answer.custom_id == _custom_id(number)
        assert answer.response.body.choices[0].message.content == answer_to(_text(number))


def compare_clients(bench: Bench, lines: int, turns: int) -> dict[str, list[float]]:
    print(f"Bare clients, {lines:,} lines, lines/s")
    found: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for _ in range(turns):
        for library, speeds in found.items():
            speeds.append(bench.bare(lines, library).lines_per_second)
            print(f"  {library:8} {speeds[-1]:8,.0f}", flush=True)
    for library, speeds in found.items():
        print(f"  {library:8} {median(speeds):8,.0f}  median")
    return found


def compare_with_bare(bench: Bench, lines: int, turns: int) -> list[dict[str, object]]:
    print(f"{lines:,} lines, lines/s; the client polls every {_POLL_SECONDS} s")
    print("      bare     ours  ratio   upload + batch + download, s   CPU of bare, server, s")
    found = list(_turns(bench, lines, turns))
    ratio = median(turn.ratio for turn in found)
    bare = median(turn.bare.lines_per_second for turn in found)
    ours = median(turn.ours.lines_per_second for turn in found)
    print(f"  {bare:8,.0f} {ours:8,.0f} {ratio:6.3f}   medians; {_verdict(ratio >= _GOAL_RATIO)}")
    return [asdict(turn) | {"ratio": turn.ratio} for turn in found]


def _turns(bench: Bench, lines: int, turns: int) -> Iterator[Turn]:
    for _ in range(turns):
        turn = Turn(bench.bare(lines), bench.ours(lines))
        bare, run = turn.bare, turn.ours
        speeds = f"{bare.lines_per_second:8,.0f} {run.lines_per_second:8,.0f} {turn.ratio:6.3f}"
        parts = f"{run.upload_seconds:.2f} + {run.batch_seconds:.2f} + {run.download_seconds:.2f}"
        print(f"  {speeds}   {parts:28} {bare.cpu_seconds:8.2f} {run.cpu_seconds:7.2f}", flush=True)
        yield turn


def measure_memory(bench: Bench, sizes: list[int]) -> list[dict[str, object]]:
    print("Peak memory of the server, MB")
    found = []
    for lines in sizes:
        found.append(run := bench.ours(lines))
        speed = f"{run.lines_per_second:8,.0f} lines/s"
        print(f"  {lines:8,} lines {run.peak_bytes / 1e6:8.1f} {speed}", flush=True)
    growth = found[-1].peak_bytes - found[0].peak_bytes
    print(f"  growth {growth / 1e6:15.1f}   {_verdict(growth < _GOAL_GROWTH_BYTES)}")
    return [asdict(run) for run in found]


def _wait(client: OpenAI, batch: Batch) -> Batch:
    while batch.status not in _FINAL:
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch
    return batch


def _input_line(number: int) -> str:
    messages = [{"role": "user", "content": _text(number)}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 64}
    line = {"custom_id": _custom_id(number), "method": "POST", "url": PATH, "body": body}
    return json.dumps(line) + "\n"


def _custom_id(number: int) -> str:
    return f"request-{number:08}"


def _text(number: int) -> str:
    """Long enough for a line of about 400 bytes, and different for each."""
    words = (f"word{number * 31 + step:08}" for step in range(17))
    return " ".join(words)


def _standin(folder: Path) -> StandinProcess:
    return StandinProcess(folder, journal=False)


def _machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "cpu": platform.processor(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def _verdict(reached: bool) -> str:
    return "goal reached" if reached else "goal missed"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3, help="bare and ours by turns; 0: none")
    parser.add_argument("--sizes", type=int, nargs="*", default=[2_000, 20_000, 100_000])
    parser.add_argument("--connections", type=int, default=128, help="the server's max_in_flight")
    parser.add_argument("--compare-clients", action="store_true", help="aiohttp and httpx2, bare")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
