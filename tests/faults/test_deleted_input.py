"""A batch keeps its own hold on the bytes of its input."""

from pathlib import Path

import pytest
from openai import NotFoundError

from batch_api.store.inspection import inspect
from tests.lived_in import LivedIn, finished
from tests.server import Server, StandinProcess


@pytest.mark.slow
def test_a_batch_whose_input_is_deleted_goes_on_even_after_kill_minus_nine(
    killed: LivedIn, tmp_path: Path
) -> None:
    lived_in = killed.copy(tmp_path / "data")
    input_id = lived_in.running.input_file_id
    with Server(tmp_path, "http://127.0.0.1:9") as server, server.client() as client:
        assert client.files.delete(input_id).deleted
        with pytest.raises(NotFoundError):
            client.files.content(input_id)
        server.kill()
    assert lived_in.blob(input_id).exists()

    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url, settings={"request_timeout_seconds": 1}) as server,
        server.client() as client,
    ):
        batch = finished(client, lived_in.running)
        server.terminate()
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    assert not lived_in.blob(input_id).exists()
    found = inspect(lived_in.data_dir, deep=True, results_are_kept=True)
    assert found.is_all_right, str(found)
