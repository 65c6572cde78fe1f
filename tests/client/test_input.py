import os
from pathlib import Path

import pytest

from batch_api.client.input import InputUnusable, first_url


def test_a_pipe_which_can_be_read_but_once_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(InputUnusable, match="pipe is not a file"):
        first_url(pipe)
