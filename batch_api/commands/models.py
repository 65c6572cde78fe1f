"""What can be said about a model by who does not load it: the server may have no torch at all."""

from importlib.util import find_spec
from pathlib import Path

from batch_api.errors import Unusable


def check_model(model: str) -> None:
    """What can be said about a model before torch is there. Raises Unusable."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise Unusable(f"A worker needs {' and '.join(missing)}: pip install 'batch-api[worker]'.")
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise Unusable(f"The folder {model} holds no model: it has no config.json.")
    elif folder.exists():
        raise Unusable(f"{model} is not a folder with a model in it.")
    elif _looks_like_a_path(model):
        raise Unusable(f"There is no folder {model}.")


def _looks_like_a_path(model: str) -> bool:
    """A hub name is `name` or `organisation/name`."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1
