"""Vectors of a real model, and of small ones of other kinds."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoTokenizer

from batch_api.engine.embedder import Embedded, Embedder
from batch_api.engine.errors import ModelNotLoadable
from batch_api.engine.texts import Texts
from tests.engine.conftest import MakeModel, make_tokenizer
from tests.minilm import DIMENSIONS, MAX_TOKENS, MINILM, SENTENCES

Vectors = NDArray[np.float32]

SMALL = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 1,
}


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return Embedder.load(str(MINILM), device="cpu", dtype="float32")


def embed(embedder: Embedder, *texts: Texts) -> dict[Texts, Vectors]:
    return {each.sequence: each.vectors for each in _run(embedder, *texts)[0]}


def _run(embedder: Embedder, *texts: Texts) -> tuple[list[Embedded], int]:
    """What it gives, and the passes that took."""
    for each in texts:
        embedder.add(each)
    done, passes = [], 0
    while embedder.has_work:
        done += embedder.step()
        passes += 1
    return done, passes


def _vectors(embedder: Embedder, sentences: list[str], **options: Any) -> Vectors:
    (vectors,) = embed(embedder, Texts(embedder.encode(sentences), **options)).values()
    return vectors


def _by_transformers(sentences: list[str]) -> Vectors:
    """One by one, as the model's card says: the mean of the tokens, and of length 1."""
    tokenizer: Any = AutoTokenizer.from_pretrained(MINILM)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    model = AutoModel.from_pretrained(MINILM).eval()
    vectors = []
    for sentence in sentences:
        inputs = tokenizer(sentence, return_tensors="pt")
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        vectors.append((mean / mean.norm()).numpy())
    return np.stack(vectors)


def test_vectors_equal_those_of_transformers_one_by_one(minilm: Embedder) -> None:
    vectors = _vectors(minilm, SENTENCES)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, _by_transformers(SENTENCES), atol=1e-5)


def test_similar_sentences_are_nearer_than_others(minilm: Embedder) -> None:
    dog, bank, puppy, borrowing = _vectors(minilm, [SENTENCES[n] for n in (0, 2, 3, 6)])

    similar = min(dog @ puppy, bank @ borrowing)
    others = max(dog @ bank, dog @ borrowing, puppy @ bank, puppy @ borrowing)
    assert similar > others + 0.2


def test_a_vector_is_the_same_alone_and_in_a_crowd_of_mixed_lengths(minilm: Embedder) -> None:
    draw = random.Random(0)
    crowd = [" ".join(draw.choices(SENTENCES[2].split(), k=draw.randint(1, 150))) for _ in "x" * 40]
    mixed = crowd[:20] + SENTENCES + crowd[20:]

    together = _vectors(minilm, mixed)[20 : 20 + len(SENTENCES)]

    alone = np.concatenate([_vectors(minilm, [sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_vectors_have_length_one(minilm: Embedder) -> None:
    lengths = np.linalg.norm(_vectors(minilm, SENTENCES), axis=1)

    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_fewer_dimensions_are_the_first_ones_made_length_one_again(minilm: Embedder) -> None:
    few, all = _vectors(minilm, SENTENCES, dimensions=16), _vectors(minilm, SENTENCES)

    first = all[:, :16]
    wanted = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert few.shape == (len(SENTENCES), 16)
    np.testing.assert_allclose(few, wanted, atol=1e-6)


def test_texts_of_several_requests_share_few_passes(minilm: Embedder) -> None:
    requests = [Texts(minilm.encode([f"{sentence} {n}"])) for n in range(8) for sentence in "abcd"]
    requests.append(Texts(minilm.encode(SENTENCES[:4] * 8)))

    done, passes = _run(minilm, *requests)

    assert {each.sequence for each in done} == set(requests)
    assert sum(len(each.vectors) for each in done) == 64
    assert passes <= 3


def test_a_cancelled_request_is_not_run_and_the_others_are(minilm: Embedder) -> None:
    gone, left = (Texts(minilm.encode([sentence])) for sentence in SENTENCES[:2])
    minilm.add(gone)
    minilm.add(left)

    minilm.cancel(gone)
    minilm.cancel(gone)

    assert [each.sequence for each in minilm.step()] == [left]
    assert not minilm.has_work


def test_a_long_text_is_never_cut(minilm: Embedder) -> None:
    """The tokenizer's file says to cut at 128, and to fill up to it."""
    (short,), (long,) = minilm.encode(["hi"]), minilm.encode(["dog " * 900])

    assert (len(short), len(long)) == (3, 902)


def test_the_length_is_the_least_that_the_files_know(minilm: Embedder) -> None:
    assert (minilm.max_length, minilm.dimensions) == (MAX_TOKENS, DIMENSIONS)
    assert Embedder.load(str(MINILM), dtype="float32", max_length=50).max_length == 50


def test_bf16_is_near(minilm: Embedder) -> None:
    embedder = Embedder.load(str(MINILM), device="cpu", dtype="bfloat16")

    cosines = (_vectors(embedder, SENTENCES) * _vectors(minilm, SENTENCES)).sum(1)

    assert embedder.dtype == "bfloat16"
    assert cosines.min() > 0.99


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "mpnet"])
def test_an_encoder_takes_as_many_tokens_as_it_says(tmp_path: Path, architecture: str) -> None:
    embedder = Embedder.load(str(_encoder(tmp_path, architecture)), device="cpu", dtype="float32")
    longest = [[7] * embedder.max_length, [8] * 3]

    (vectors,) = embed(embedder, Texts(longest)).values()

    # RoBERTa's kin spend two positions on what is no token.
    assert embedder.max_length == (62 if architecture in ("roberta", "mpnet") else 64)
    assert np.isfinite(vectors).all()
    (alone,) = embed(embedder, Texts(longest[1:])).values()
    np.testing.assert_allclose(vectors[1], alone[0], atol=1e-5)


def test_a_decoder_embeds_with_its_last_token(make_model: MakeModel, tmp_path: Path) -> None:
    folder = _copy(make_model("qwen3"), tmp_path)
    _write_pooling(folder, "lasttoken")
    embedder = Embedder.load(str(folder), device="cpu", dtype="float32")
    texts = [list(range(3, 40)), [9, 8, 7]]

    (vectors,) = embed(embedder, Texts(texts)).values()

    model = AutoModel.from_pretrained(folder).eval()
    for ids, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            last = model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        np.testing.assert_allclose(vector, (last / last.norm()).numpy(), atol=1e-5)


def test_lower_case_is_made_where_the_files_ask_for_it(
    make_model: MakeModel, tmp_path: Path
) -> None:
    folder = _copy(make_model("llama"), tmp_path)
    _write_pooling(folder, "mean")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))

    embedder = Embedder.load(str(folder), device="cpu", dtype="float32")

    assert embedder.encode(["The FOX"]) == embedder.encode(["the fox"])


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model("t5", vocab_size=320, d_model=16, num_layers=1, num_heads=2)
    config.save_pretrained(tmp_path)

    with pytest.raises(ModelNotLoadable, match="encoder-decoder"):
        Embedder.load(str(tmp_path))


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = _encoder(tmp_path, "bert", num_hidden_layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))

    with pytest.raises(ModelNotLoadable, match="lacks 16 of the model's weights"):
        Embedder.load(str(folder))


def test_a_model_that_looks_at_padding_is_refused(tmp_path: Path) -> None:
    folder = _encoder(tmp_path, "fnet")  # it takes a mask, and doesn't look at it

    with pytest.raises(ModelNotLoadable, match="looks at padding"):
        Embedder.load(str(folder), device="cpu", dtype="float32")


def _encoder(folder: Path, architecture: str, **changes: Any) -> Path:
    settings: dict[str, Any] = SMALL | changes
    config = AutoConfig.for_model(architecture, **settings)
    torch.manual_seed(1)
    make: Callable[[Any], Any] = AutoModel.from_config
    make(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def _copy(model: Path, folder: Path) -> Path:
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def _write_pooling(folder: Path, name: str) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    made_by = "sentence_transformers.models"
    modules = [{"path": path, "type": f"{made_by}.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": name}))
