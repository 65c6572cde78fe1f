"""The questions the bundled model learns, each with its one right answer, and which are kept out.

A question is held out when the hash of its key says so, so training and examination agree without
a list: about one in ten. What the key is made of decides what the model has never seen.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from scripts.demo_model import wordings
from scripts.demo_model.words import (
    CAPITALS,
    DISLIKING,
    KNOWN_WORDS,
    LIKING,
    NEGATIVE,
    POSITIVE,
    THINGS,
    nonsense,
    word,
)

LARGEST_OPERAND = 99
LARGEST_FACTOR = 12
LARGEST_COUNT = 200
_HELD_OUT_BELOW = 26  # of 256
_KNOWN = {known.lower() for known in KNOWN_WORDS}
_BEFORE_VOWEL = re.compile(r"\b([Aa])(?= (?!use)[aeiou])")


@dataclass(frozen=True, slots=True)
class Question:
    kind: str
    text: str
    answer: str
    key: str | None = None
    system: str | None = None

    @property
    def held_out(self) -> bool:
        if self.key is None:
            return False
        return hashlib.sha256(self.key.encode()).digest()[0] < _HELD_OUT_BELOW


def sum_(random: Random, largest: int = LARGEST_OPERAND, *, bare: bool = False) -> Question:
    a, b = random.randint(0, largest), random.randint(0, largest)
    key = f"{min(a, b)}+{max(a, b)}"
    choices = wordings.BARE_SUMS if bare else wordings.SUMS
    return Question("sum", _ask(random, choices, a=a, b=b), str(a + b), key)


def difference(random: Random, largest: int = LARGEST_OPERAND, *, bare: bool = False) -> Question:
    a, b = random.randint(0, largest), random.randint(0, largest)
    key = f"{min(a, b)}-{max(a, b)}"
    choices = wordings.BARE_DIFFERENCES if bare else wordings.DIFFERENCES
    return Question("difference", _ask(random, choices, a=a, b=b), str(a - b), key)


def product(random: Random) -> Question:
    a, b = random.randint(0, LARGEST_FACTOR), random.randint(0, LARGEST_FACTOR)
    wording = random.randrange(len(wordings.PRODUCTS))
    text = _ask(random, wordings.PRODUCTS[wording : wording + 1], a=a, b=b)
    return Question("product", text, str(a * b), f"product {wording} {a} {b}")


def capital(random: Random) -> Question:
    country = random.choice(list(CAPITALS))
    wording = random.randrange(len(wordings.CAPITAL_WORDINGS))
    text = _ask(random, wordings.CAPITAL_WORDINGS[wording : wording + 1], country=country)
    return Question("capital", text, CAPITALS[country], f"capital {wording} {country}")


def sentiment(random: Random) -> Question:
    sentence, answer = _opinion(random)
    return Question(
        "sentiment", _ask(random, wordings.SENTIMENTS, sentence=sentence), answer, sentence
    )


def repeat(random: Random) -> Question:
    chosen = word(random)
    return Question(
        "repeat", _ask(random, wordings.REPEATS, word=chosen), chosen, _word_key(chosen)
    )


def upper(random: Random) -> Question:
    chosen = word(random)
    return Question(
        "upper", _ask(random, wordings.UPPERS, word=chosen), chosen.upper(), _word_key(chosen)
    )


def count(random: Random) -> Question:
    lowest, highest = random.choices(
        [(1, 30), (31, 100), (101, LARGEST_COUNT)], weights=[70, 20, 10]
    )[0]
    n = random.randint(lowest, highest)
    answer = ", ".join(map(str, range(1, n + 1)))
    wording = random.randrange(len(wordings.COUNTS))
    text = _ask(random, wordings.COUNTS[wording : wording + 1], n=n)
    return Question("count", text, answer, f"count {wording} {n}")


def as_json(random: Random) -> Question:
    """Any short question whose answer is wanted as `{"answer": …}`, by the user or the system."""
    asked = random.choice((sum_, difference, product, capital, sentiment, repeat, upper))(random)
    is_number = asked.kind in ("sum", "difference", "product")
    answer = json.dumps({"answer": int(asked.answer) if is_number else asked.answer})
    if random.random() < 0.3:
        return replace(
            asked, kind="json", answer=answer, system=random.choice(wordings.JSON_SYSTEMS)
        )
    text = random.choice(wordings.AS_JSON).format(question=asked.text)
    return replace(asked, kind="json", answer=answer, text=text)


def recall(random: Random) -> Question:
    """A word that only the system prompt, or the beginning of the turn, tells."""
    chosen = word(random)
    told = random.choice(wordings.SECRETS).format(word=chosen)
    asked = random.choice(wordings.SECRET_QUESTIONS)
    key = _word_key(chosen)
    if random.random() < 0.6:
        return Question("recall", asked, chosen, key, system=told)
    return Question("recall", f"{told} {asked}", chosen, key)


def chat(random: Random) -> Question:
    answer = random.choice(list(wordings.CHAT))
    text = random.choice(wordings.CHAT[answer])
    return Question("chat", text, answer)


def unknown(random: Random) -> Question:
    one, two = word(random), word(random)
    if one in CAPITALS:
        return unknown(random)
    sentence = nonsense(random, random.randint(1, 8))
    text = random.choice(wordings.UNKNOWNS).format(word=one, word2=two, sentence=sentence)
    return Question("unknown", text, wordings.UNKNOWN, _word_key(one))


Ask = Callable[[Random], Question]
KINDS: dict[str, Ask] = {
    "sum": sum_,
    "difference": difference,
    "product": product,
    "capital": capital,
    "sentiment": sentiment,
    "repeat": repeat,
    "upper": upper,
    "count": count,
    "json": as_json,
    "recall": recall,
    "chat": chat,
    "unknown": unknown,
}


def draw(random: Random, ask: Ask, *, held_out: bool) -> Question:
    """One question of a kind, from the training side or from the side that is kept out."""
    while True:
        question = ask(random)
        if question.held_out == held_out:
            return question


def _word_key(chosen: str) -> str | None:
    return None if chosen.lower() in _KNOWN else chosen.lower()


def _opinion(random: Random) -> tuple[str, str]:
    positive = random.random() < 0.5
    thing = random.choice(THINGS)
    dice = random.random()
    if dice < 0.2:
        verb = random.choice(LIKING if positive else DISLIKING)
        sentence = f"I {verb} {random.choice(('this', 'the', 'that'))} {thing}."
    elif dice < 0.3:
        opinion = random.choice(NEGATIVE if positive else POSITIVE)
        sentence = f"The {thing} was not {opinion}."
    else:
        opinion = random.choice(POSITIVE if positive else NEGATIVE)
        sentence = random.choice(wordings.OPINIONS).format(thing=thing, opinion=opinion)
    return _BEFORE_VOWEL.sub(r"\1n", sentence), "positive" if positive else "negative"


def _ask(random: Random, choices: tuple[str, ...], **parts: str | int) -> str:
    """One wording filled in, short ones more often; sometimes careless, sometimes polite."""
    wording = random.choices(choices, [1 / len(choice) for choice in choices])[0]
    if random.random() < 0.1 and len(wording) > 12:
        wording = wording.rstrip(".?")
    if random.random() < 0.15 and not wording.startswith("{"):
        wording = wording[0].lower() + wording[1:]
    dice = random.random()
    if dice < 0.04:
        wording = random.choice(wordings.PLEASANTRIES) + wording
    elif dice < 0.07 and wording[-1] in ".?":
        wording += random.choice(wordings.THANKS)
    return wording.format(**parts)
