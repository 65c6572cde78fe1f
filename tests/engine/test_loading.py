"""A model that the engine cannot compute rightly is refused at load, in a sentence."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from batch_api.engine.engine import Engine, ModelNotLoadable
from tests.engine.conftest import MakeModel

REFUSED: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},  # position biases, not through the interface
    "mpt": {"d_model": 48, "n_heads": 4, "n_layers": 2},
    "gpt_oss": {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4},  # sinks
    "mamba": {},  # no attention at all
    "jamba": {"num_key_value_heads": 2, "num_experts": 2},  # some layers have none
}


@pytest.mark.parametrize("architecture", REFUSED)
def test_a_model_that_attends_in_another_way_is_refused(
    make_model: MakeModel, architecture: str
) -> None:
    folder = make_model(architecture, **REFUSED[architecture])

    with pytest.raises(ModelNotLoadable):
        Engine.load(str(folder), dtype="float32", max_sequences=2, max_length=64)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("t5").save_pretrained(tmp_path)

    with pytest.raises(ModelNotLoadable, match="encoder-decoder"):
        Engine.load(str(tmp_path), dtype="float32")


def test_dynamic_rotary_positions_are_refused(make_model: MakeModel) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}

    with pytest.raises(ModelNotLoadable, match="dynamic"):
        Engine.load(str(make_model("llama", rope_parameters=rope)), dtype="float32")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoadable, match="nowhere"):
        Engine.load(str(tmp_path / "nowhere"))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoadable, match="cannot be loaded"):
        Engine.load(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    for file in make_model("llama").glob("*"):
        if "token" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())

    with pytest.raises(ModelNotLoadable, match="tokenizer"):
        Engine.load(str(tmp_path), dtype="float32")


def copy(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to / "model.safetensors"


def test_half_a_weights_file_is_refused(llama: Path, tmp_path: Path) -> None:
    weights = copy(llama, tmp_path)
    weights.write_bytes(weights.read_bytes()[:5000])

    with pytest.raises(ModelNotLoadable, match="cannot be loaded"):
        Engine.load(str(tmp_path), dtype="float32")


def test_a_checkpoint_that_lacks_weights_is_refused_and_not_filled_up(
    llama: Path, tmp_path: Path
) -> None:
    weights = copy(llama, tmp_path)
    tensors = load_file(weights)
    del tensors["lm_head.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})

    with pytest.raises(ModelNotLoadable, match="lacks 1"):
        Engine.load(str(tmp_path), dtype="float32")


def test_an_unknown_dtype_is_refused(llama: Path) -> None:
    with pytest.raises(ModelNotLoadable, match="int3"):
        Engine.load(str(llama), dtype="int3")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_is_not_there_is_named(llama: Path, device: str) -> None:
    with pytest.raises(ModelNotLoadable, match=f"the device {device} can't be used: "):
        Engine.load(str(llama), device=device, dtype="float32")


def test_the_length_is_at_most_what_the_model_knows(llama: Path) -> None:
    engine = Engine.load(str(llama), dtype="float32", max_sequences=2, max_length=10**6)

    assert engine.max_length == 256
