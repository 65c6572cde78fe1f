"""`python -m tests.soak --minutes 10 --seed 7`: the folder is kept if anything was wrong."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="[default: by chance]")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="batch-api-soak-"))
    print(f"SEED={seed} MINUTES={given.minutes:g}, in {folder}", flush=True)
    outcome = Soak(folder, seed=seed, minutes=given.minutes).run()
    print(outcome)
    if outcome.complaints:
        print(f"What it left is in {folder}; make soak SEED={seed} tries the same again.")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
