"""Our engine beside transformers, on the same model and the same requests, in turns.

A random-weight model with the shape of SmolLM2-135M; prompts of 32 to 256 tokens, 64 to 256 new
tokens drawn for each, greedy, no early end. Four contenders:

- `single`: `generate`, one request at a time (on a share of the requests)
- `padded N`: `generate` over N requests at a time, padded, until the slowest is done; each batch
  size is tried once, the best goes on. Only tokens that were asked for count.
- `continuous`: transformers' own continuous batching (on a share of the requests)
- `ours`

Each contender has its own process, for its own peak memory; they run one after the other, in
turns, so that whatever else the machine does falls on all of them. The CPU column is tokens per
second of CPU time: on a busy machine it is steadier than the clock, with `--threads 1` above all.

    python -m benchmarks.engine --dtypes float32 bfloat16 --turns 3 --json engine.json
"""

import argparse
import json
import logging
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
PROMPT_TOKENS = (32, 256)
NEW_TOKENS = (64, 256)
LENGTH = PROMPT_TOKENS[1] + NEW_TOKENS[1]

Work = list[tuple[list[int], int]]  # prompts, and how many new tokens each gets
Contender = Callable[[Work], None]


def draw_work(count: int) -> Work:
    draw = random.Random(0)
    return [
        ([draw.randrange(SHAPE["vocab_size"]) for _ in range(size)], draw.randint(*NEW_TOKENS))
        for size in (draw.randint(*PROMPT_TOKENS) for _ in range(count))
    ]


# -- the contenders, each in its own process ------------------------------------------------


def load_ours(folder: str, dtype: str, options: argparse.Namespace) -> Contender:
    from batch_api.engine.engine import Engine
    from batch_api.engine.sequence import SamplingOptions, Sequence

    engine = Engine.load(
        folder,
        dtype=dtype,
        max_sequences=options.sequences,
        max_length=LENGTH,
        prefill_budget=options.prefill_budget,
    )

    def run(work: Work) -> None:
        for prompt, new in work:
            asked = SamplingOptions(max_tokens=new, temperature=0, ignore_end=True)
            engine.add(Sequence(prompt, asked))
        answered = 0
        while engine.has_work:
            answered += sum(delta.tokens for delta in engine.step())
        assert answered == sum(new for _, new in work)

    return run


def load_padded(folder: str, dtype: str, size: int) -> Contender:
    import torch

    model = _load_transformers(folder, dtype)

    def run(work: Work) -> None:
        for start in range(0, len(work), size):
            prompts, news = zip(*work[start : start + size], strict=True)
            longest = max(map(len, prompts))
            ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
            lengths = torch.tensor([len(each) for each in prompts])
            mask = (torch.arange(longest) >= longest - lengths[:, None]).long()
            output = model.generate(
                ids, attention_mask=mask, max_new_tokens=max(news), do_sample=False
            )
            assert output.shape == (len(prompts), longest + max(news))

    return run


def load_continuous(folder: str, dtype: str, options: argparse.Namespace) -> Contender:
    from transformers import ContinuousBatchingConfig

    model = _load_transformers(folder, dtype)
    make_config: Any = ContinuousBatchingConfig
    page = 32
    settings = make_config(
        page_size=page,
        num_blocks=options.sequences * LENGTH // page,
        max_batch_tokens=options.prefill_budget,
        use_async_batching=False,
    )

    def run(work: Work) -> None:
        with model.continuous_batching_context_manager(
            generation_config=model.generation_config,
            continuous_batching_config=settings,
            block=True,
        ) as manager:
            for prompt, new in work:
                manager.add_request(prompt, max_new_tokens=new, eos_token_id=-1)
            answered = 0
            while answered < sum(new for _, new in work):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    answered += len(result.generated_tokens)

    return run


def _load_transformers(folder: str, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=dtype)
    model.generation_config.update(do_sample=False, eos_token_id=None, pad_token_id=0)
    return model.eval()


def serve(name: str, folder: str, dtype: str, options: argparse.Namespace) -> None:
    """Load, then run the requests whose count comes on each line of the standard input."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    if options.threads:
        torch.set_num_threads(options.threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    kind, _, size = name.partition(" ")
    if kind == "ours":
        run = load_ours(folder, dtype, options)
    elif kind == "continuous":
        run = load_continuous(folder, dtype, options)
    else:
        run = load_padded(folder, dtype, int(size or 1))
    work = draw_work(options.requests)
    _report(memory=_peak_bytes())
    for line in sys.stdin:
        some = work[: int(line)]
        start, cpu_start = time.perf_counter(), time.process_time()
        run(some)
        _report(
            tokens=sum(new for _, new in some),
            seconds=time.perf_counter() - start,
            cpu_seconds=time.process_time() - cpu_start,
            memory=_peak_bytes(),
        )


def _report(**facts: float) -> None:
    print(json.dumps(facts), flush=True)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- the run over all of them ---------------------------------------------------------------


@dataclass
class Runner:
    """One contender's process, and what it measured."""

    name: str
    requests: int
    process: subprocess.Popen[str]
    speeds: list[float] = field(default_factory=list)  # tokens/s of each turn
    cpu_speeds: list[float] = field(default_factory=list)  # tokens per second of CPU time
    peak: float = 0

    def run(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.requests}\n")
        self.process.stdin.flush()
        facts = self.read()
        self.speeds.append(facts["tokens"] / facts["seconds"])
        self.cpu_speeds.append(facts["tokens"] / facts["cpu_seconds"])
        self.peak = facts["memory"]
        print(f"  {self.name}: {self.speeds[-1]:.1f} tokens/s", file=sys.stderr, flush=True)

    def read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        facts: dict[str, float] = json.loads(self.process.stdout.readline())
        return facts

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)

    @property
    def cpu_speed(self) -> float:
        return statistics.median(self.cpu_speeds)

    def stop(self) -> None:
        self.process.communicate()


def start(name: str, folder: str, dtype: str, options: argparse.Namespace) -> Runner:
    requests = {"single": options.single, "continuous": options.continuous}
    command = [sys.executable, "-m", "benchmarks.engine", "--serve", name, folder, dtype]
    command += ["--requests", str(options.requests), "--sequences", str(options.sequences)]
    command += ["--prefill-budget", str(options.prefill_budget)]
    command += ["--threads", str(options.threads)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    runner = Runner(name, requests.get(name, options.requests), process)
    runner.read()
    return runner


def measure(folder: str, dtype: str, options: argparse.Namespace) -> list[Runner]:
    """Every contender in every turn; after the first only the best padded batch size."""
    print(f"{dtype}:", file=sys.stderr)
    padded = [start(f"padded {size}", folder, dtype, options) for size in options.padded]
    names = [name for name in ("single", "continuous") if getattr(options, name)]
    others = [start(name, folder, dtype, options) for name in (*names, "ours")]
    for runner in padded + others:
        runner.run()
    best = max(padded, key=lambda runner: runner.speed)
    for _ in range(options.turns - 1):
        for runner in [best, *others]:
            runner.run()
    for runner in padded + others:
        runner.stop()
    return [*padded, *others]


def table(dtype: str, runners: list[Runner]) -> str:
    ours = runners[-1]
    lines = [
        f"{dtype}: {'contender':14} {'requests':>8} {'tokens/s':>9} {'of ours':>8} {'CPU':>6}"
        f" {'of ours':>8} {'peak':>9}"
    ]
    lines += [
        f"{dtype}: {runner.name:14} {runner.requests:8} {runner.speed:9.1f}"
        f" {runner.speed / ours.speed:8.0%} {runner.cpu_speed:6.1f}"
        f" {runner.cpu_speed / ours.cpu_speed:8.0%} {runner.peak / 2**20:6.0f} MB"
        for runner in runners
    ]
    best = max(
        (each for each in runners if each.name.startswith("padded")),
        key=lambda each: (len(each.speeds), each.speed),
    )
    ratios = [one / other for one, other in zip(ours.speeds, best.speeds, strict=True)]
    turns = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    lines.append(
        f"{dtype}: ours is {statistics.median(ratios):.2f} times {best.name} ({turns} in its turns;"
        f" {ours.cpu_speed / best.cpu_speed:.2f} by CPU time)"
    )
    return "\n".join(lines)


def save_model(folder: str) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config: Any = LlamaConfig
    LlamaForCausalLM(config(**SHAPE)).save_pretrained(folder)
    words = {f"w{index} ": index for index in range(SHAPE["vocab_size"])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token="w0 ").save_pretrained(folder)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--requests", type=int, default=64)
    add("--dtypes", nargs="+", default=["float32", "bfloat16"])
    add("--turns", type=int, default=3)
    add("--padded", type=int, nargs="+", default=[8, 16, 32, 64], help="batch sizes to try")
    add("--single", type=int, default=8, help="requests for generate one by one; 0: leave it out")
    add("--continuous", type=int, default=8, help="requests for transformers' own; 0: leave it out")
    add("--sequences", type=int, default=64, help="slots of our engine")
    add("--prefill-budget", type=int, default=512)
    add("--threads", type=int, default=0, help="of torch; 1 on a busy machine, for CPU time")
    add("--json", type=Path, help="write the figures here too")
    add("--serve", nargs=3, metavar=("CONTENDER", "FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.serve:
        name, folder, dtype = options.serve
        serve(name, folder, dtype, options)
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder)
        for dtype in options.dtypes:
            runners = measure(folder, dtype, options)
            print(table(dtype, runners), flush=True)
            figures[dtype] = [
                {
                    "name": runner.name,
                    "requests": runner.requests,
                    "tokens_per_second": runner.speeds,
                    "tokens_per_cpu_second": runner.cpu_speeds,
                    "peak_bytes": runner.peak,
                }
                for runner in runners
            ]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
