"""What the saved model gets right, greedy, on questions it was never trained on."""

from collections.abc import Iterator
from random import Random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scripts.demo_model.questions import KINDS, Question, draw

SEED = 7
QUESTIONS_PER_KIND = 1000
LONGEST_ANSWER = 800
ROOM = 32_768  # tokens, prompts and answers together, in one call to generate


def held_out(kind: str, *, questions: int = QUESTIONS_PER_KIND, seed: int = SEED) -> list[Question]:
    """Different held-out questions of a kind: fewer where there are no more."""
    random = Random(f"{seed} {kind}")
    found: dict[tuple[str | None, str], Question] = {}
    for _ in range(20 * questions):
        if len(found) == questions:
            break
        asked = draw(random, KINDS[kind], held_out=kind != "chat")
        found[asked.system, asked.text] = asked
    return list(found.values())


@torch.inference_mode()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question]
) -> list[str]:
    """Greedy answers, in the order of the questions."""
    tokenizer.padding_side = "left"
    answered: dict[int, str] = {}
    for chosen in _together(questions):
        prompts = [messages(questions[place]) for place in chosen]
        texts = [
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            for prompt in prompts
        ]
        inputs = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        longest = max(len(questions[place].answer) for place in chosen)
        output = model.generate(  # type: ignore[operator]
            inputs.input_ids,
            attention_mask=inputs.attention_mask,
            do_sample=False,
            max_new_tokens=min(longest + 8, LONGEST_ANSWER),
        )
        given = tokenizer.batch_decode(
            output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
        )
        answered.update(zip(chosen, given, strict=True))
    return [answered[place] for place in range(len(questions))]


def messages(question: Question) -> list[dict[str, str]]:
    told = [] if question.system is None else [{"role": "system", "content": question.system}]
    return [*told, {"role": "user", "content": question.text}]


def accuracy_by_kind(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, questions: int
) -> Iterator[tuple[str, int, int, list[tuple[Question, str]]]]:
    """Kind, right answers, questions asked, and the wrong answers."""
    for kind in KINDS:
        asked = held_out(kind, questions=questions)
        given = answers(model, tokenizer, asked)
        wrong = [(q, a) for q, a in zip(asked, given, strict=True) if q.answer != a]
        yield kind, len(asked) - len(wrong), len(asked), wrong


def _together(questions: list[Question]) -> Iterator[list[int]]:
    """Places of questions with answers of similar length, as many as fit one call."""
    chosen: list[int] = []
    for place in sorted(range(len(questions)), key=lambda place: len(questions[place].answer)):
        if (len(chosen) + 1) * (len(questions[place].answer) + 64) > ROOM:
            yield chosen
            chosen = []
        chosen.append(place)
    yield chosen
