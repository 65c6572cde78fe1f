"""Trains the bundled model, measures it, and writes the held-out questions that tests ask it.

python -m scripts.train_demo_model train        # about 25 minutes on two CPU cores
python -m scripts.train_demo_model evaluate     # the accuracy table of the model card
python -m scripts.train_demo_model questions    # tests/data/held_out_questions.jsonl
"""

import argparse
import json
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from scripts.demo_model.conversations import SEED, vocabulary_texts
from scripts.demo_model.examination import (
    QUESTIONS_PER_KIND,
    accuracy_by_kind,
    answers,
    held_out,
)
from scripts.demo_model.questions import KINDS
from scripts.demo_model.tokenizer import build_tokenizer
from scripts.demo_model.training import make_model

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "batch_api" / "demo_model"
QUESTIONS_FILE = ROOT / "tests" / "data" / "held_out_questions.jsonl"
QUESTIONS_IN_FILE_PER_KIND = 45
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def train(folder: Path) -> None:
    tokenizer = build_tokenizer(vocabulary_texts(Random(SEED)))
    model = make_model(tokenizer)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_the_tokenizer_class(folder / "tokenizer_config.json")


def evaluate(folder: Path, *, questions: int, dtype: str, show_wrong: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    print("| kind | right | asked | accuracy |\n| --- | ---: | ---: | ---: |")
    for kind, right, asked, wrong in accuracy_by_kind(model, tokenizer, questions=questions):
        print(f"| {kind} | {right} | {asked} | {right / asked:.1%} |", flush=True)
        for question, answer in wrong if show_wrong else []:
            print(f"    {question.system!r} {question.text!r}: {answer!r}, not {question.answer!r}")


def write_questions(folder: Path, file: Path) -> None:
    """Held-out questions of every kind that the model gets right; those it gets wrong are left out.

    Only questions without a system prompt, so that a line needs nothing but its `question`.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = []
    for kind in KINDS:
        asked = [q for q in held_out(kind, questions=150) if q.system is None]
        given = answers(model, tokenizer, asked)
        right = [q for q, answer in zip(asked, given, strict=True) if q.answer == answer]
        lines += [
            json.dumps({"kind": q.kind, "question": q.text, "answer": q.answer})
            for q in right[:QUESTIONS_IN_FILE_PER_KIND]
        ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def _name_the_tokenizer_class(file: Path) -> None:
    """transformers 5 writes a class name that 4 doesn't know; both know this one."""
    config = json.loads(file.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=("train", "evaluate", "questions"))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--questions", type=int, default=QUESTIONS_PER_KIND)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--show-wrong", action="store_true")
    chosen = parser.parse_args()
    if chosen.command == "train":
        train(chosen.folder)
    elif chosen.command == "evaluate":
        evaluate(
            chosen.folder,
            questions=chosen.questions,
            dtype=chosen.dtype,
            show_wrong=chosen.show_wrong,
        )
    else:
        write_questions(chosen.folder, QUESTIONS_FILE)


if __name__ == "__main__":
    main()
