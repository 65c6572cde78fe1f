"""What a process asked of the kernel, in order, as strace wrote it down."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CALLS = "fsync,fdatasync,pwrite64,write,writev,sendmsg,rename,mkdir"
_BEGUN = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<told>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. \w+ resumed>")


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    told: str
    """Its arguments, with the paths of descriptors; whole buffers, printable bytes as they are."""
    began: int
    ended: int
    """Both in lines of the trace: other threads' calls may lie between."""


def tracing(trace: Path) -> list[str]:
    """The command to run something under, so that `calls` can read it."""
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-s",
        "65536",
        "-o",
        str(trace),
        "-e",
        f"trace={_CALLS}",
    ]


def calls(trace: Path) -> list[Call]:
    """Those that ended, in the order in which they began."""
    open_ones: dict[str, Call] = {}
    ended: list[Call] = []
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        if resumed := _RESUMED.match(line):
            begun = open_ones.pop(resumed["thread"])
            ended.append(Call(begun.name, begun.told, begun.began, number))
        elif begun_now := _BEGUN.match(line):
            call = Call(begun_now["name"], begun_now["told"], number, number)
            if line.endswith("<unfinished ...>"):
                open_ones[begun_now["thread"]] = call
            else:
                ended.append(call)
    return sorted(ended, key=lambda call: call.began)


@dataclass(frozen=True, slots=True)
class Step:
    """A call by its name and what its arguments tell."""

    name: str
    seen: tuple[str, ...]
    is_first: bool
    """The first one of the whole trace; else the first after the step before."""

    def fits(self, call: Call) -> bool:
        return call.name == self.name and all(one in call.told for one in self.seen)


def first(name: str, *seen: str) -> Step:
    return Step(name, seen, is_first=True)


def then(name: str, *seen: str) -> Step:
    return Step(name, seen, is_first=False)


def check_order(trace: Sequence[Call], *steps: Step) -> Call:
    """Each begins after the one before has ended; the last of them."""
    before: Call | None = None
    for step in steps:
        ended = -1 if before is None else before.ended
        found = (c for c in trace if step.fits(c) and (step.is_first or c.began > ended))
        call = next(found, None)
        assert call is not None, f"{step} is missing after {before}"
        assert call.began > ended, f"{step} comes too early: {call} before {before}"
        before = call
    assert before is not None
    return before


def answer(trace: Sequence[Call], *told: str) -> Call:
    """The first call that sends a byte of the first answer whose body tells that."""
    writes = [call for call in trace if call.name == "write" and "<socket:" in call.told]
    body = next(n for n, call in enumerate(writes) if all(one in call.told for one in told))
    socket = writes[body].told.partition(">")[0]
    heads = (call for call in writes[body::-1] if call.told.startswith(f'{socket}>, "HTTP/1.1'))
    return next(heads)
