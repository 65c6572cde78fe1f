"""What a model's own files say of its vectors."""

import json
from pathlib import Path
from typing import Any

import pytest

from batch_api.engine.errors import ModelNotLoadable
from batch_api.engine.recipe import Recipe, read_recipe
from tests.minilm import MINILM

_OLD = "sentence_transformers.models."
_NEW = "sentence_transformers.base.modules."


def _model(
    folder: Path,
    *kinds: str,
    pooling: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> str:
    paths = ["", "1_Pooling", "2_Other", "3_Other"]
    modules = [{"type": kind, "path": path} for kind, path in zip(kinds, paths, strict=False)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling or {}))
    if settings is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_a_real_model_s_recipe() -> None:
    assert read_recipe(str(MINILM)) == Recipe(("mean",), max_length=256, lowercase=False)


def test_without_such_files_it_is_the_mean(tmp_path: Path) -> None:
    assert read_recipe(str(tmp_path)) == Recipe(("mean",), max_length=None, lowercase=False)


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ("cls", "max")),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",)),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
    ],
)
@pytest.mark.parametrize("made_by", [_OLD, _NEW])
def test_old_and_new_files_name_their_pooling(
    tmp_path: Path, made_by: str, pooling: dict[str, Any], named: tuple[str, ...]
) -> None:
    model = _model(tmp_path, f"{made_by}Transformer", f"{made_by}Pooling", pooling=pooling)

    assert read_recipe(model).poolings == named


def test_the_length_and_lower_case_are_taken(tmp_path: Path) -> None:
    settings = {"max_seq_length": 77, "do_lower_case": True}
    model = _model(tmp_path, f"{_OLD}Transformer", f"{_OLD}Pooling", settings=settings)

    recipe = read_recipe(model)

    assert (recipe.max_length, recipe.lowercase) == (77, True)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        ((f"{_OLD}Transformer", f"{_OLD}Pooling", f"{_OLD}Dense"), "Dense"),
        ((f"{_NEW}StaticEmbedding",), "StaticEmbedding"),
        (("custom.Transformer", f"{_OLD}Pooling"), "custom.Transformer"),
    ],
)
def test_modules_that_we_lack_are_refused_by_name(
    tmp_path: Path, kinds: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ModelNotLoadable, match=named):
        read_recipe(_model(tmp_path, *kinds))


def test_a_pooling_that_we_lack_is_refused_by_name(tmp_path: Path) -> None:
    kinds = (f"{_NEW}Transformer", f"{_NEW}Pooling")

    with pytest.raises(ModelNotLoadable, match="no pooling named median"):
        read_recipe(_model(tmp_path, *kinds, pooling={"pooling_mode": "median"}))


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("{")

    with pytest.raises(ModelNotLoadable, match="cannot be loaded"):
        read_recipe(str(tmp_path))
