import json
from collections.abc import Mapping
from typing import Any

import pytest

from batch_api.lifecycle import RequestState
from batch_api.scheduler.answers import Answered, Failed, Judge, Overloaded
from batch_api.schemas.replies import said
from batch_api.store.batches import Usage
from batch_api.store.requests import Lease
from batch_api.unusable import UpstreamBroke
from batch_api.upstreams import Reply

LEASE = Lease(
    id=1,
    batch_number=1,
    line=7,
    custom_id="row-7",
    attempt=1,
    failures=0,
    body_offset=0,
    body_length=1,
)
CHAT_USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSES_USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
}


def judge(
    body: object, *, status: int = 200, headers: Mapping[str, str] = {}
) -> Answered | Failed | Overloaded:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Judge("batch_1").judge(LEASE, Reply(status, headers, raw, said(raw)), "req_ours")


def answered(body: object, *, status: int = 200, headers: Mapping[str, str] = {}) -> Answered:
    verdict = judge(body, status=status, headers=headers)
    assert isinstance(verdict, Answered)
    return verdict


def line(verdict: Answered | Failed | Overloaded) -> Any:
    assert not isinstance(verdict, Overloaded)
    return json.loads(verdict.settlement.line)


@pytest.mark.parametrize(
    ("status", "is_refused"),
    [(200, False), (400, True), (413, True), (422, True), (401, False), (403, False), (404, False)],
)
def test_what_is_refused_for_what_it_asks_is_known(status: int, is_refused: bool) -> None:
    assert answered({"error": {"message": "no"}}, status=status).is_refused is is_refused


@pytest.mark.parametrize("usage", [CHAT_USAGE, RESPONSES_USAGE])
def test_tokens_are_counted_under_either_name(usage: object) -> None:
    verdict = answered({"model": "m", "usage": usage})

    assert (verdict.model, verdict.usage) == ("m", Usage(10, 4, 5, 2))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        {"prompt_tokens": "many"},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": 10**30},
        {"prompt_tokens": 2**62},
        {"prompt_tokens": None, "prompt_tokens_details": None},
    ],
    ids=str,
)
def test_an_answer_whose_usage_is_odd_is_an_answer_all_the_same(usage: object) -> None:
    verdict = answered({"usage": usage})

    assert verdict.settlement.state == RequestState.COMPLETED
    assert verdict.usage == Usage()


def test_only_a_200_is_completed() -> None:
    assert answered({}, status=200).settlement.state == RequestState.COMPLETED
    for status in (201, 301, 400, 401, 404, 422):
        assert answered({}, status=status).settlement.state == RequestState.FAILED


@pytest.mark.parametrize("status", [408, 409, 425, 500, 501, 502, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert isinstance(judge({}, status=status), Failed)


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":' + b"[" * 100_000],
)
def test_what_is_no_json_object_is_tried_again(status: int, body: bytes) -> None:
    verdict = judge(body, status=status)

    assert isinstance(verdict, Failed)
    assert str(status) in json.dumps(line(verdict))


def test_an_excerpt_of_nonsense_is_short() -> None:
    assert len(json.dumps(line(judge(b"x" * 1_000_000)))) < 1_000


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("999999", 120.0),
        ("nan", None),
        ("inf", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_upstream_may_say_for_how_long(
    status: int, header: str, seconds: float | None
) -> None:
    assert judge(b"", status=status, headers={"retry-after": header}) == Overloaded(seconds)


@pytest.mark.parametrize(
    ("headers", "id"),
    [
        ({}, "req_ours"),
        ({"x-request-id": "req_theirs"}, "req_theirs"),
        ({"x-request-id": ""}, "req_ours"),
        ({"x-request-id": "\udcff"}, "req_ours"),
    ],
)
def test_a_line_names_the_request_by_the_upstreams_id(headers: dict[str, str], id: str) -> None:
    assert line(answered({}, headers=headers))["response"]["request_id"] == id


def test_a_line_has_the_same_id_whatever_the_attempt() -> None:
    first = line(judge({}, status=500))["id"]
    second = line(answered({}))["id"]
    broke = line(Judge("batch_1").broke(LEASE, UpstreamBroke("it broke off")))

    assert first == second == broke["id"]
    assert first.startswith("batch_req_")
    assert broke["error"] == {"code": "worker_crashed", "message": "it broke off"}
