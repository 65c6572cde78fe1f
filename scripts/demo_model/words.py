"""The facts and words the questions are made of, and the maker of words nobody has seen."""

from random import Random


def _listed(words: str) -> list[str]:
    return words.split()


CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Switzerland": "Bern",
    "Belgium": "Brussels",
    "Poland": "Warsaw",
    "Hungary": "Budapest",
    "Greece": "Athens",
    "Ireland": "Dublin",
    "England": "London",
    "Scotland": "Edinburgh",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Iceland": "Reykjavik",
    "Russia": "Moscow",
    "Ukraine": "Kyiv",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
    "Serbia": "Belgrade",
    "Croatia": "Zagreb",
    "Turkey": "Ankara",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Nigeria": "Abuja",
    "Morocco": "Rabat",
    "Ghana": "Accra",
    "Ethiopia": "Addis Ababa",
    "Japan": "Tokyo",
    "China": "Beijing",
    "India": "New Delhi",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Indonesia": "Jakarta",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Canada": "Ottawa",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Brazil": "Brasilia",
    "Argentina": "Buenos Aires",
    "Chile": "Santiago",
    "Peru": "Lima",
    "Colombia": "Bogota",
    "Venezuela": "Caracas",
    "Australia": "Canberra",
}

POSITIVE = _listed(
    "good great wonderful excellent amazing fantastic lovely brilliant perfect superb "
    "delightful beautiful nice awesome outstanding charming pleasant terrific"
)
NEGATIVE = _listed(
    "bad terrible awful horrible poor dreadful disappointing boring ugly disgusting broken "
    "useless annoying rude dirty slow unpleasant lousy"
)
LIKING = _listed("love like enjoyed loved adore liked recommend")
DISLIKING = _listed("hate dislike hated disliked regret despise detest")
THINGS = _listed(
    "film movie book food hotel service product phone game song restaurant room staff show "
    "story coffee car concert weather meal"
)

REAL_WORDS = _listed(
    "banana apple orange lemon cherry grape melon peach table chair window door house garden "
    "river mountain ocean forest desert island bridge street village teacher doctor farmer "
    "sailor soldier king queen prince horse tiger lion elephant monkey rabbit turtle dolphin "
    "eagle sparrow spider butter cheese bread sugar pepper honey water wine bottle glass plate "
    "spoon knife hammer needle thread cotton silver golden copper iron stone paper pencil "
    "number music guitar violin piano trumpet drum dance winter summer spring autumn "
    "monday friday morning evening midnight yellow purple green violet rocket planet comet star "
    "moon engine wheel battery signal wire keyboard screen server worker token python "
    "world happy little bookkeeper committee mississippi success balloon zebra quick jazz "
    "rhythm puzzle oxygen xylophone umbrella strawberry pineapple cat dog sun tree"
)

_ONSETS = _listed("b c d f g h j k l m n p q r s t v w x z ch sh th st tr br pl gr")
_VOWELS = _listed("a e i o u a e i o y ee oo ai ou")
_CODAS = ["", "", "", *_listed("n r s t l m d k ll ss tt nd st ng ck p")]


# Mostly one token each, with letters that can only be learned: these are never held out.
KNOWN_WORDS = [
    *CAPITALS,
    *(capital for capital in CAPITALS.values() if " " not in capital),
    *POSITIVE,
    *NEGATIVE,
    *LIKING,
    *DISLIKING,
    *THINGS,
    *_listed("city hello word capital case small batch answer question number"),
]


def word(random: Random) -> str:
    """A word to copy: now and then a real one, mostly one that was just made up."""
    dice = random.random()
    if dice < 0.2:
        made = random.choice(REAL_WORDS)
    elif dice < 0.35:
        made = random.choice(KNOWN_WORDS)
    elif dice < 0.7:
        made = _syllables(random)
    else:
        made = "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(1, 12)))
    return made.capitalize() if random.random() < 0.15 else made


def nonsense(random: Random, words: int) -> str:
    """A sentence that means nothing."""
    return " ".join(word(random) for _ in range(words)).capitalize() + "."


def _syllables(random: Random) -> str:
    return "".join(
        random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS)
        for _ in range(random.randint(1, 4))
    )
