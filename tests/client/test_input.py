import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from batch_api.client.input import InputUnusable, check_whole, first_url, opened
from batch_api.schemas.marks import GZIP


def test_a_pipe_which_can_be_read_but_once_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(InputUnusable, match="pipe is not a file"):
        first_url(pipe)


@pytest.mark.parametrize(
    "before", [b"", b"\n", b"nonsense\n", b"{}\n", b'{"url": 1}\n', b"\xff\n"], ids=repr
)
def test_the_endpoint_is_that_of_the_first_line_with_one(tmp_path: Path, before: bytes) -> None:
    input = tmp_path / "in.jsonl"
    input.write_bytes(b"\xef\xbb\xbf" + before + b'{"url": "/a"}\n{"url": "/b"}\n')

    assert first_url(input) == "/a"


def test_a_line_may_be_as_long_as_it_likes(tmp_path: Path) -> None:
    input = tmp_path / "in.jsonl"
    input.write_bytes(b'{"body": "' + 17 * 1024 * 1024 * b"x" + b'", "url": "/a"}\n')

    assert first_url(input) == "/a"


def test_what_is_wrong_with_the_first_line_is_told_if_no_line_has_one(tmp_path: Path) -> None:
    input = tmp_path / "in.jsonl"
    input.write_bytes(b'{"url": 1}\nnonsense\n')

    with pytest.raises(InputUnusable, match=r"No line of .* Expected `str`, got `int`"):
        first_url(input)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "There is no line in"),
        (b"\n \n", "There is no line in"),
        (b"\xef\xbb\xbf", "There is no line in"),
        (gzip.compress(b"", mtime=0), "There is no line in"),
        (gzip.compress(b'{"url": "/a"}\n', mtime=0)[:-20], "is not whole, or not what gzip"),
        (GZIP + b"nonsense", "is not whole, or not what gzip"),
    ],
    ids=["empty", "blank", "mark", "nothing packed", "cut short", "no gzip"],
)
def test_what_is_no_text_with_lines_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    input = tmp_path / "in.jsonl"
    input.write_bytes(content)

    with pytest.raises(InputUnusable, match=problem):
        first_url(input)


@pytest.mark.parametrize("indent", [None, 2], ids=["on one line", "on many"])
def test_an_array_is_told_from_lines(tmp_path: Path, indent: int | None) -> None:
    input = tmp_path / "in.json"
    input.write_text("\n" + json.dumps([{"url": "/a"}, {"url": "/b"}], indent=indent))

    with pytest.raises(InputUnusable, match=r"in\.json is a JSON array, and a batch wants JSONL"):
        first_url(input)


def test_what_is_packed_is_read_unpacked_in_all_its_members(tmp_path: Path) -> None:
    input = tmp_path / "in.jsonl.gz"
    input.write_bytes(gzip.compress(b'{"url": "/a"}\n') + gzip.compress(b'{"url": "/b"}\n'))

    assert first_url(input) == "/a"
    with opened(input) as text:
        assert text.read() == b'{"url": "/a"}\n{"url": "/b"}\n'


@pytest.mark.parametrize(
    "spoil", [lambda it: it[:-4], lambda it: it[:-8] + b"\0" * 8], ids=["cut short", "spoilt"]
)
def test_what_is_broken_at_its_end_is_told_before_it_is_used(tmp_path: Path, spoil: Any) -> None:
    input = tmp_path / "in.jsonl.gz"
    input.write_bytes(spoil(gzip.compress(b'{"url": "/a"}\n' * 100_000)))

    assert first_url(input) == "/a"
    with (
        pytest.raises(InputUnusable, match="is not whole, or not what gzip writes: "),
        opened(input) as file,
    ):
        check_whole(file)


def test_little_that_unpacks_to_much_is_never_whole_in_memory(tmp_path: Path) -> None:
    input = tmp_path / "in.jsonl.gz"
    with gzip.open(input, "wb", compresslevel=1) as file:
        for _ in range(192):
            file.write(bytes(1024 * 1024))
    tracemalloc.start()

    with pytest.raises(InputUnusable, match="No line of"):
        first_url(input)
    with opened(input) as text:
        check_whole(text)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 96 * 1024 * 1024
