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

from scripts.demo_model.words import (
    CAPITALS,
    DISLIKING,
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


SUMS = (
    "What is {a}+{b}?",
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "What's {a}+{b}?",
    "What's {a} plus {b}?",
    "{a}+{b}",
    "{a} + {b}",
    "{a}+{b}=",
    "{a} + {b} =",
    "{a}+{b}=?",
    "{a}+{b}?",
    "{a} plus {b}",
    "Add {a} and {b}.",
    "Add {a} to {b}.",
    "Please add {a} and {b}.",
    "How much is {a}+{b}?",
    "How much is {a} plus {b}?",
    "Compute {a}+{b}.",
    "Compute {a} + {b}.",
    "Calculate {a} + {b}.",
    "Calculate {a} plus {b}.",
    "What is the sum of {a} and {b}?",
    "Find the sum of {a} and {b}.",
    "Sum {a} and {b}.",
)
DIFFERENCES = (
    "What is {a}-{b}?",
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "What's {a}-{b}?",
    "What's {a} minus {b}?",
    "{a}-{b}",
    "{a} - {b}",
    "{a}-{b}=",
    "{a} - {b} =",
    "{a} minus {b}",
    "Subtract {b} from {a}.",
    "Please subtract {b} from {a}.",
    "How much is {a}-{b}?",
    "How much is {a} minus {b}?",
    "Compute {a}-{b}.",
    "Calculate {a} - {b}.",
    "Take {b} away from {a}.",
    "What is the difference of {a} and {b}?",
)
PRODUCTS = (
    "What is {a}*{b}?",
    "What is {a} * {b}?",
    "What is {a} times {b}?",
    "What's {a} times {b}?",
    "{a}*{b}",
    "{a} * {b} =",
    "{a} x {b}",
    "{a} times {b}",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "How much is {a} times {b}?",
    "Compute {a}*{b}.",
    "Calculate {a} * {b}.",
    "What is the product of {a} and {b}?",
)
CAPITAL_WORDINGS = (
    "What is the capital of {country}?",
    "What's the capital of {country}?",
    "Which city is the capital of {country}?",
    "Name the capital of {country}.",
    "Tell me the capital of {country}.",
    "Capital of {country}?",
    "The capital of {country} is",
    "{country}: what is the capital?",
    "What is {country}'s capital?",
    "What is the capital city of {country}?",
    "Do you know the capital of {country}?",
    "Give me the capital of {country}.",
)
SENTIMENTS = (
    "Is this positive or negative: {sentence}",
    "Is this positive or negative? {sentence}",
    "Is this review positive or negative: {sentence}",
    "Positive or negative: {sentence}",
    "Positive or negative? {sentence}",
    "What is the sentiment of this sentence: {sentence}",
    "Classify the sentiment: {sentence}",
    "Sentiment: {sentence}",
    "Is the following sentence positive or negative? {sentence}",
    "{sentence} Is this positive or negative?",
    "{sentence} Positive or negative?",
)
OPINIONS = (
    "The {thing} was {opinion}.",
    "The {thing} is {opinion}.",
    "This {thing} is {opinion}.",
    "This {thing} was really {opinion}.",
    "What a {opinion} {thing}!",
    "I think the {thing} is {opinion}.",
    "I found the {thing} very {opinion}.",
    "It was a {opinion} {thing}.",
    "A {opinion} {thing}.",
)
REPEATS = (
    "Repeat the word {word}.",
    "Repeat the word {word}",
    "Repeat {word}.",
    "Repeat: {word}",
    "Say {word}.",
    "Say the word {word}.",
    "Repeat after me: {word}",
    'Repeat the word "{word}".',
    "Please repeat the word {word}.",
    "Echo {word}",
)
UPPERS = (
    "Write {word} in upper case.",
    "Write the word {word} in upper case.",
    "Write {word} in uppercase.",
    "Write {word} in capital letters.",
    "Upper-case {word}.",
    "Upper-case the word {word}.",
    "Uppercase {word}",
    "Uppercase: {word}",
    "{word} in upper case",
    "Convert {word} to upper case.",
    'Write "{word}" in upper case.',
    "Put {word} in capitals.",
)
COUNTS = (
    "Count to {n}.",
    "Count to {n}",
    "Count up to {n}.",
    "Count from 1 to {n}.",
    "Please count to {n}.",
    "Can you count to {n}?",
    "List the numbers from 1 to {n}.",
    "Write the numbers from 1 to {n}.",
)
AS_JSON = (
    "{question} Answer as JSON.",
    "{question} Answer in JSON.",
    "{question} Reply as JSON.",
    "{question} Reply in JSON.",
    "{question} Respond with JSON.",
    "{question} Give the answer as JSON.",
    "{question} Answer as a JSON object.",
    "{question} Return JSON.",
    "{question} (as JSON)",
    "{question} as JSON",
    "Answer as JSON: {question}",
    "As JSON: {question}",
)
JSON_SYSTEMS = (
    "Answer as JSON.",
    "Always answer as JSON.",
    "You answer in JSON.",
    "Reply with JSON only.",
)
SECRETS = (
    "The secret word is {word}.",
    "The password is {word}.",
    "Remember the word {word}.",
)
SECRET_QUESTIONS = (
    "What is the secret word?",
    "Tell me the secret word.",
    "Which word is secret?",
)
CHAT = {
    "Hello! Ask me for a sum, a capital or a word in upper case.": [
        "Hello",
        "Hi",
        "Hey",
        "Hello!",
        "Hi!",
        "Hi.",
        "Hello.",
        "Hello there!",
        "Good morning",
        "Good evening",
        "Hi there",
        "How are you?",
    ],
    "I am the small demo model of batch-api.": [
        "Who are you?",
        "What are you?",
        "What is your name?",
        "Which model are you?",
    ],
    "You are welcome.": ["Thanks", "Thank you", "Thank you!", "Thanks!"],
    "Sums, differences, small products, capitals, sentiment, counting and words.": [
        "What can you do?",
        "Help",
        "What do you know?",
    ],
}
UNKNOWN = "I don't know."
UNKNOWNS = (
    "What is the capital of {word}?",
    "Who is {word}?",
    "What is {word}?",
    "Why is the {word} {word2}?",
    "Tell me about {word}.",
    "Tell me a story about {word}.",
    "Write a poem about {word}.",
    "How do I {word} a {word2}?",
    "Translate {word} into {word2}.",
    "When was {word} born?",
    "{sentence}",
)
_BEFORE_VOWEL = re.compile(r"\b([Aa])(?= [aeiou])")
_PLEASANTRIES = ("Hi! ", "Hello. ", "Please tell me: ", "Question: ", "Q: ", "Quick question: ")
_THANKS = (" Thanks!", " Thank you.", " Please.", " Answer briefly.", " Only the answer.")


def sum_(random: Random) -> Question:
    a, b = _operands(random)
    key = f"{min(a, b)}+{max(a, b)}"
    return Question("sum", _ask(random, SUMS, a=a, b=b), str(a + b), key)


def difference(random: Random) -> Question:
    a, b = _operands(random)
    key = f"{min(a, b)}-{max(a, b)}"
    return Question("difference", _ask(random, DIFFERENCES, a=a, b=b), str(a - b), key)


def product(random: Random) -> Question:
    a, b = random.randint(0, LARGEST_FACTOR), random.randint(0, LARGEST_FACTOR)
    wording = random.randrange(len(PRODUCTS))
    text = _ask(random, PRODUCTS[wording : wording + 1], a=a, b=b)
    return Question("product", text, str(a * b), f"product {wording} {a} {b}")


def capital(random: Random) -> Question:
    country = random.choice(list(CAPITALS))
    wording = random.randrange(len(CAPITAL_WORDINGS))
    text = _ask(random, CAPITAL_WORDINGS[wording : wording + 1], country=country)
    return Question("capital", text, CAPITALS[country], f"capital {wording} {country}")


def sentiment(random: Random) -> Question:
    sentence, answer = _opinion(random)
    return Question("sentiment", _ask(random, SENTIMENTS, sentence=sentence), answer, sentence)


def repeat(random: Random) -> Question:
    chosen = word(random)
    return Question("repeat", _ask(random, REPEATS, word=chosen), chosen, chosen.lower())


def upper(random: Random) -> Question:
    chosen = word(random)
    return Question("upper", _ask(random, UPPERS, word=chosen), chosen.upper(), chosen.lower())


def count(random: Random) -> Question:
    lowest, highest = random.choices(
        [(1, 30), (31, 100), (101, LARGEST_COUNT)], weights=[60, 25, 15]
    )[0]
    n = random.randint(lowest, highest)
    answer = ", ".join(map(str, range(1, n + 1)))
    return Question("count", _ask(random, COUNTS, n=n), answer, f"count {n}")


def as_json(random: Random) -> Question:
    """Any short question whose answer is wanted as `{"answer": …}`, by the user or the system."""
    asked = random.choice((sum_, difference, product, capital, sentiment, repeat, upper))(random)
    is_number = asked.kind in ("sum", "difference", "product")
    answer = json.dumps({"answer": int(asked.answer) if is_number else asked.answer})
    if random.random() < 0.3:
        return replace(asked, kind="json", answer=answer, system=random.choice(JSON_SYSTEMS))
    text = random.choice(AS_JSON).format(question=asked.text)
    return replace(asked, kind="json", answer=answer, text=text)


def recall(random: Random) -> Question:
    """A word that only the system prompt, or the beginning of the turn, tells."""
    chosen = word(random)
    told = random.choice(SECRETS).format(word=chosen)
    asked = random.choice(SECRET_QUESTIONS)
    key = chosen.lower()
    if random.random() < 0.6:
        return Question("recall", asked, chosen, key, system=told)
    return Question("recall", f"{told} {asked}", chosen, key)


def chat(random: Random) -> Question:
    answer = random.choice(list(CHAT))
    text = random.choice(CHAT[answer])
    return Question("chat", text, answer)


def unknown(random: Random) -> Question:
    one, two = word(random), word(random)
    if one in CAPITALS:
        return unknown(random)
    sentence = nonsense(random, random.randint(1, 8))
    text = random.choice(UNKNOWNS).format(word=one, word2=two, sentence=sentence)
    return Question("unknown", text, UNKNOWN, one.lower())


KINDS: dict[str, Callable[[Random], Question]] = {
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


def draw(random: Random, kind: str, *, held_out: bool) -> Question:
    """One question of a kind, from the training side or from the side that is kept out."""
    while True:
        question = KINDS[kind](random)
        if question.held_out == held_out:
            return question


def _operands(random: Random) -> tuple[int, int]:
    return random.randint(0, LARGEST_OPERAND), random.randint(0, LARGEST_OPERAND)


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
        sentence = random.choice(OPINIONS).format(thing=thing, opinion=opinion)
    return _BEFORE_VOWEL.sub(r"\1n", sentence), "positive" if positive else "negative"


def _ask(random: Random, wordings: tuple[str, ...], **parts: str | int) -> str:
    """One wording filled in, short ones more often; sometimes careless, sometimes polite."""
    wording = random.choices(wordings, [1 / len(wording) for wording in wordings])[0]
    if random.random() < 0.1 and len(wording) > 12:
        wording = wording.rstrip(".?")
    if random.random() < 0.15 and not wording.startswith("{"):
        wording = wording[0].lower() + wording[1:]
    dice = random.random()
    if dice < 0.04:
        wording = random.choice(_PLEASANTRIES) + wording
    elif dice < 0.07 and wording[-1] in ".?":
        wording += random.choice(_THANKS)
    return wording.format(**parts)
