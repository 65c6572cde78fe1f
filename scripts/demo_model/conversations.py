"""What is taught in which order, and the conversations it is taught with."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from scripts.demo_model.questions import (
    KINDS,
    Ask,
    Question,
    as_json,
    capital,
    chat,
    count,
    difference,
    draw,
    product,
    recall,
    repeat,
    sentiment,
    sum_,
    unknown,
    upper,
)
from scripts.demo_model.tokenizer import ASSISTANT, END, SYSTEM, USER
from scripts.demo_model.wordings import CHAT, SYSTEM_PROMPTS
from scripts.demo_model.words import nonsense

SEED = 2024
Shares = dict[Ask, float]
ARITHMETIC: Shares = {
    partial(sum_, largest=9, bare=True): 10,
    partial(difference, largest=9, bare=True): 7,
    partial(sum_, bare=True): 50,
    partial(difference, bare=True): 33,
}
EVERYTHING: Shares = {
    partial(sum_, largest=9): 5,
    partial(difference, largest=9): 4,
    sum_: 28,
    difference: 22,
    product: 6,
    capital: 4,
    sentiment: 4,
    repeat: 6,
    upper: 6,
    count: 2.5,
    as_json: 8,
    recall: 4,
    chat: 0.7,
    unknown: 2,
}
# Where to stop counting is one token in hundreds, so practice counts more and heeds the end.
WEAK_POINTS: Shares = EVERYTHING | {sum_: 20, difference: 26, count: 8, as_json: 12, recall: 5}


@dataclass(frozen=True, slots=True)
class Course:
    """What is taught in which order: the two `…_until` are shares of the steps.

    Bare arithmetic alone is learned in a quarter of the steps that it takes among everything else,
    and conversations of several turns go faster when single questions are known.
    """

    seed: int
    steps: int
    rate: float
    end_weight: float
    shares: Shares
    arithmetic_until: float = 0.0
    single_turns_until: float = 0.0


LESSONS = Course(
    seed=SEED,
    steps=3600,
    rate=1.0,
    end_weight=1.0,
    shares=EVERYTHING,
    arithmetic_until=0.2,
    single_turns_until=0.65,
)
PRACTICE = Course(seed=SEED + 1, steps=800, rate=0.5, end_weight=8.0, shares=WEAK_POINTS)


def draw_conversation(random: Random, course: Course, *, progress: float) -> str:
    """A rendered conversation for when that share of the steps is done; few fill the context."""
    if progress < course.arithmetic_until:
        return _turn(_draw(random, ARITHMETIC))
    dice = random.random() if progress >= course.single_turns_until else 0.0
    turns = 1 if dice < 0.6 else random.randint(2, 6) if dice < 0.98 else 60
    first = _draw(random, course.shares)
    text = _system(random, first) + _turn(first)
    for _ in range(turns - 1):
        text += _turn(_follow(random, first, course.shares))
    return text


def _draw(random: Random, shares: Shares) -> Question:
    ask = random.choices(list(shares), weights=list(shares.values()))[0]
    return draw(random, ask, held_out=False)


def _follow(random: Random, first: Question, shares: Shares) -> Question:
    """A later question, with an answer that holds under the system prompt of the first."""
    if first.kind == "json" and first.system is not None:
        return draw(random, as_json, held_out=False)
    if first.kind == "recall" and first.system is not None and random.random() < 0.5:
        return first
    while (asked := _draw(random, shares)).system is not None:
        pass
    return asked


def _system(random: Random, asked: Question) -> str:
    dice = random.random()
    if asked.system is not None:
        prompt = asked.system
        if dice < 0.2:
            prompt = f"{random.choice(SYSTEM_PROMPTS)} {prompt}"
    elif dice < 0.7:
        return ""
    elif dice < 0.95:
        prompt = random.choice(SYSTEM_PROMPTS)
    else:
        sentences = [nonsense(random, random.randint(3, 8)) for _ in range(random.randint(1, 2))]
        prompt = " ".join(sentences)
    return f"{SYSTEM}{prompt}{END}"


def _turn(asked: Question) -> str:
    return f"{USER}{asked.text}{END}{ASSISTANT}{asked.answer}{END}"


def vocabulary_texts(random: Random, questions: int = 30_000) -> Iterator[str]:
    """Training questions of all kinds alike, for the tokenizer to find the frequent words in."""
    for _ in range(questions):
        asked = draw(random, random.choice(list(KINDS.values())), held_out=False)
        yield from (asked.text, asked.answer, asked.system or "")
    for greetings in CHAT.values():
        yield from greetings
    yield from SYSTEM_PROMPTS
