"""What can be said about a model by who does not load it: the server may have no torch at all."""

import logging
from importlib.util import find_spec
from pathlib import Path

from batch_api.errors import Unusable
from batch_api.in_words import error_in_words
from batch_api.upstream import without_userinfo

_CONFIG = "config.json"


def check_model(model: str) -> None:
    """What can be said about a model before torch is there; the hub may be asked for it.

    Raises Unusable.
    """
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise Unusable(f"A worker needs {' and '.join(missing)}: pip install 'batch-api[worker]'.")
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / _CONFIG).is_file():
            raise Unusable(f"The folder {model} holds no model: it has no {_CONFIG}.")
    elif folder.exists():
        raise Unusable(f"{model} is not a folder with a model in it.")
    elif _looks_like_a_path(model):
        raise Unusable(f"There is no folder {model}.")
    else:
        _check_hub(model)


def _check_hub(model: str) -> None:
    """Raises Unusable if it is neither in the cache nor to be had."""
    # Imported here: they take half a second, and a server without workers may not have them.
    import httpx2
    from huggingface_hub import constants, file_exists, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    hub = without_userinfo(constants.ENDPOINT)
    logging.getLogger("huggingface_hub").handlers.clear()  # or all it says is said twice
    try:
        is_there = isinstance(try_to_load_from_cache(model, _CONFIG), str)
        if is_there or file_exists(model, _CONFIG):
            return
    except HFValidationError as error:
        raise Unusable(f"{model!r} is neither a folder nor a model's name.") from error
    except GatedRepoError as error:
        raise Unusable(
            f"{hub} has {model} only for who agreed to its terms there: do so, and set HF_TOKEN."
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unusable(
            f"There is no folder {model}, and {hub} can't be asked for a model of that "
            f"name: {error_in_words(error)}. Name a folder with a model, or see to the network."
        ) from error
    raise Unusable(
        f"There is no folder {model}, and {hub} has no model of that name (to see "
        "private ones, set HF_TOKEN)."
    )


def _looks_like_a_path(model: str) -> bool:
    """A hub name is `name` or `organisation/name`."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1
