"""How a model's files say that its vectors are made: the files of sentence-transformers.

A model without them gets the mean of its tokens. Vectors have length 1 here whether or not there
is a Normalize module, as OpenAI's have.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from batch_api.engine.errors import ModelNotLoadable
from batch_api.engine.loading import refusing
from batch_api.engine.pooling import POOLINGS, Poolings

# Older files have a switch for each.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MADE_BY = "sentence_transformers."


@dataclass(frozen=True, slots=True)
class Recipe:
    poolings: Poolings = ("mean",)
    max_length: int | None = None
    lowercase: bool = False


def read_recipe(model: str) -> Recipe:
    """`model`: a folder or a hub name. Raises ModelNotLoadable for what we don't do."""
    with refusing(f"{model} cannot be loaded"):
        modules = _read(model, "modules.json")
        if modules is None:
            return Recipe()
        kinds = [_kind(module) for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise ModelNotLoadable(
                f"{model} makes its vectors with the modules {', '.join(kinds)}; the embedder has"
                " Transformer, Pooling and Normalize, in this order"
            )
        transformer, pooling = (module["path"] for module in modules[:2])
        if transformer:
            raise ModelNotLoadable(f"{model} keeps its transformer in the folder {transformer}")
        settings = _read(model, "sentence_bert_config.json") or {}
        return Recipe(
            poolings=_poolings(_read(model, f"{pooling}/config.json") or {}),
            max_length=settings.get("max_seq_length"),
            lowercase=bool(settings.get("do_lower_case")),
        )


def _kind(module: dict[str, Any]) -> str:
    """A module from elsewhere keeps its full name: it may do anything."""
    made = str(module["type"])
    return made.rpartition(".")[2] if made.startswith(_MADE_BY) else made


def _poolings(config: dict[str, Any]) -> Poolings:
    named = config.get("pooling_mode")
    if named is None:
        named = [name for switch, name in _SWITCHES.items() if config.get(switch)]
    poolings = (named,) if isinstance(named, str) else tuple(named)
    if strange := set(poolings) - set(POOLINGS):
        raise ModelNotLoadable(f"the embedder has no pooling named {', '.join(sorted(strange))}")
    return poolings or Recipe().poolings


def _read(model: str, file: str) -> Any:
    """None if the model has no such file."""
    path = _path(model, file)
    return None if path is None else json.loads(path.read_text())


def _path(model: str, file: str) -> Path | None:
    if (folder := Path(model)).is_dir():
        return folder / file if (folder / file).is_file() else None
    try:
        return Path(hf_hub_download(model, file))
    except LocalEntryNotFoundError:
        # Offline: a file that was never asked for is not a file that isn't there.
        if try_to_load_from_cache(model, file) is None:
            raise
        return None
    except EntryNotFoundError:
        return None
