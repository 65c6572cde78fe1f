import gzip
import os
from pathlib import Path

import pytest

from batch_api.client.input import InputUnusable, first_url


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
        (gzip.compress(b'{"url": "/a"}\n', mtime=0), "is compressed; unpack it first"),
    ],
    ids=["empty", "blank", "mark", "gzip"],
)
def test_what_is_no_text_with_lines_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    input = tmp_path / "in.jsonl"
    input.write_bytes(content)

    with pytest.raises(InputUnusable, match=problem):
        first_url(input)
