"""The ids that clients see."""

import re

from batch_api.schemas.ids import batch_id, file_id, line_id, request_id


def test_ids_look_like_openais() -> None:
    assert re.fullmatch("file-[0-9A-Za-z]{22}", file_id())
    assert re.fullmatch("batch_[0-9a-f]{32}", batch_id())
    assert re.fullmatch("req_[0-9a-f]{32}", request_id())
    assert re.fullmatch("batch_req_[0-9a-f]{32}", line_id(batch_id(), 1))


def test_a_line_has_the_same_id_each_time_and_no_other_line_has_it() -> None:
    batches = [batch_id() for _ in range(100)]
    ids = [line_id(batch, line) for batch in batches for line in range(100)]

    assert len(set(ids)) == len(ids)
    assert ids == [line_id(batch, line) for batch in batches for line in range(100)]
