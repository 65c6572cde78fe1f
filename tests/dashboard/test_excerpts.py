"""What a page shows of a file, however large it is."""

import tracemalloc
from pathlib import Path

import msgspec
import pytest

from batch_api.dashboard.excerpts import MOST_BYTES, Excerpt, excerpt, line_of, part_of

MIB = 1024 * 1024


def test_json_is_laid_out_and_its_numbers_stay_as_they_are() -> None:
    raw = b'{"a":[1.10,123456789012345678901234567890],"b":"\\u00fc"}\n'

    assert excerpt(raw) == Excerpt(
        raw='{"a":[1.10,123456789012345678901234567890],"b":"\\u00fc"}',
        laid_out=(
            '{\n  "a": [\n    1.10,\n    123456789012345678901234567890\n  ],\n  "b": "\\u00fc"\n}'
        ),
        is_cut=False,
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"no json",
        b"",
        b"\xff\xfe",
        b"[" * 50 + b"1," * 30_000 + b"1" + b"]" * 50,  # a hundred spaces before each number
        b"[" * 60_000,
        b"[" + b"1," * 60_000 + b"1]",
    ],
)
def test_what_would_be_no_clearer_is_not_laid_out(raw: bytes) -> None:
    shown = excerpt(raw)

    assert shown.raw == raw.decode(errors="replace")
    assert shown.laid_out is None


def test_brackets_in_texts_are_no_depth() -> None:
    raw = msgspec.json.encode({"code": '"' + "[{" * 100, "n": 1})

    assert excerpt(raw).laid_out is not None


@pytest.mark.parametrize(("length", "is_cut"), [(MOST_BYTES, False), (MOST_BYTES + 1, True)])
def test_only_the_beginning_of_a_long_text_is_shown(length: int, is_cut: bool) -> None:
    shown = excerpt(b"x" * length)

    assert (len(shown.raw), shown.is_cut) == (MOST_BYTES, is_cut)


def test_any_line_of_a_file_is_found(tmp_path: Path) -> None:
    """Also where pieces of what is read end, and after longer lines than one piece."""
    lengths = [10, MIB - 12, 0, 3 * MIB, 5, MIB - 1, MIB, 7]
    path = tmp_path / "out.jsonl"
    path.write_bytes(
        b"".join(b"%d" % n + b"x" * length + b"\n" for n, length in enumerate(lengths))
    )

    found = [line_of(path, before) for before in range(len(lengths))]

    assert [(it.raw[0], it.is_cut) for it in found if it is not None] == [
        (str(n), length >= MOST_BYTES) for n, length in enumerate(lengths)
    ]
    assert line_of(path, len(lengths)) is None
    assert line_of(path, 1000) is None
    assert line_of(tmp_path / "gone", 0) is None


def test_a_line_of_a_large_file_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with path.open("wb") as file:
        for n in range(64):
            file.write(b"%d" % n + b"x" * MIB + b"\n")

    tracemalloc.start()
    found = line_of(path, 60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found is not None
    assert found.raw.startswith("60x")
    assert peak < 4 * MIB


def test_a_part_of_a_file_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"body": [1]}\n' + b"y" * MIB)

    assert part_of(path, 9, 3) == Excerpt("[1]", "[\n  1\n]", is_cut=False)
    long = part_of(path, 14, MIB)
    assert long is not None
    assert (len(long.raw), long.is_cut) == (MOST_BYTES, True)
    assert part_of(tmp_path / "gone", 0, 1) is None
