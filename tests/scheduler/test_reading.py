import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_api.scheduler.reading import MAX_PROBLEMS, PAGE_LINES, InputReader, Limits
from batch_api.schemas.lines import LineRules, Problem
from batch_api.store.blobs import read_slices
from batch_api.store.requests import Place

MIB = 1024 * 1024
CHAT = "/v1/chat/completions"
RULES = LineRules(CHAT, frozenset({"m"}))
LIMITS = Limits(lines=50_000, line_bytes=16 * MIB, file_bytes=200 * MIB)
BODY = b'{"model": "m", "messages": []}'


def line(custom_id: object, body: bytes = BODY) -> bytes:
    told = json.dumps(custom_id, ensure_ascii=False).encode()
    return b'{"custom_id": %s, "method": "POST", "url": "%s", "body": %s}' % (
        told,
        CHAT.encode(),
        body,
    )


def lines(count: int) -> bytes:
    return b"".join(line(str(number)) + b"\n" for number in range(count))


def read(path: Path, limits: Limits = LIMITS) -> tuple[list[Place], InputReader]:
    reader = InputReader(path, RULES, limits)
    places = []
    while page := reader.page():
        places += page
    return places, reader


def problems(path: Path, limits: Limits = LIMITS) -> list[tuple[str, int | None]]:
    _, reader = read(path, limits)
    return [(problem.code, problem.line) for problem in reader.problems]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "input"


def bodies(path: Path, places: list[Place]) -> list[bytes]:
    return read_slices(path, [(place.body_offset, place.body_length) for place in places])


# What JSON calls white space, an odd name, and text that looks like a line's end or like JSON.
SPACE = st.text(" \t\r", max_size=3).map(str.encode)
ODD = st.sampled_from(["{}", BODY.decode(), "\u2028", "\u0085", "\x0b\x0c", '"body":', "😀", "\\"])
TEXT = st.lists(st.one_of(ODD, st.text(st.characters(exclude_categories=["Cs"])))).map("".join)


@st.composite
def json_lines(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A custom_id, a body, and a whole line around it."""
    custom_id = draw(TEXT.filter(lambda text: 0 < len(text) <= 512))
    content = json.dumps(draw(TEXT), ensure_ascii=draw(st.booleans())).encode()
    body = b'{"messages":[%s%s],%s"model":"m"}' % (draw(SPACE), content, draw(SPACE))
    fields = {
        "custom_id": json.dumps(custom_id, ensure_ascii=draw(st.booleans())).encode(),
        "method": b'"POST"',
        "url": f'"{CHAT}"'.encode(),
        "body": body,
        "more": json.dumps(draw(TEXT)).encode(),
    }
    names = draw(st.permutations(list(fields)))
    inner = b",".join(
        b'%s"%s":%s%s' % (draw(SPACE), n.encode(), draw(SPACE), fields[n]) for n in names
    )
    return custom_id, body, b"%s{%s%s}%s" % (draw(SPACE), inner, draw(SPACE), draw(SPACE))


@settings(deadline=None)
@given(
    drawn=st.lists(json_lines(), min_size=1, max_size=6, unique_by=lambda it: it[0]),
    blanks=st.lists(st.lists(SPACE, max_size=2), min_size=6, max_size=6),
    has_bom=st.booleans(),
    has_last_newline=st.booleans(),
)
def test_the_bytes_at_a_place_are_the_body(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[str, bytes, bytes]],
    blanks: list[list[bytes]],
    has_bom: bool,
    has_last_newline: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn"
    physical = []
    for (_, _, raw), before in zip(drawn, blanks, strict=False):
        physical += [*before, raw]
    content = b"\n".join(physical) + b"\n" * has_last_newline
    path.write_bytes(b"\xef\xbb\xbf" * has_bom + content)

    places, reader = read(path)
    assert reader.problems == []
    assert [place.custom_id for place in places] == [custom_id for custom_id, _, _ in drawn]
    assert bodies(path, places) == [body for _, body, _ in drawn]
    assert [physical[place.line - 1] for place in places] == [raw for _, _, raw in drawn]


# What a line may be broken with.
BITS = st.sampled_from(
    [
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\\",
            b"\n",
            b"\r",
            b" ",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
        ),
        *(b"null", b"NaN", b"1e999", b"-", b"9" * 400, b"\\ud800", b"\\u0000", "\u2028".encode()),
        *(
            b'"custom_id":',
            b'"body":',
            b'"url":"/v1/embeddings"',
            b'"stream":true',
            BODY,
            line("a"),
        ),
    ]
)


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """Lines, most of them right but for a few bytes."""
    physical = []
    for _, _, raw in draw(st.lists(json_lines(), max_size=4)):
        broken = raw
        for at, taken, put in draw(
            st.lists(
                st.tuples(
                    st.floats(0, 1), st.integers(0, 9), st.one_of(BITS, st.binary(max_size=6))
                ),
                max_size=2,
            )
        ):
            start = int(at * len(broken))
            broken = broken[:start] + put + broken[start + taken :]
        physical.append(broken)
    ending = draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + ending.join(physical)


def check_broken(path: Path, content: bytes) -> None:
    """Each line that is not blank is either right, with its body's bytes, or has its problems."""
    path.write_bytes(content)
    places, reader = read(path, LIMITS)
    lines_of_file = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    filled = {n for n, raw in enumerate(lines_of_file, 1) if raw and not raw.isspace()}
    right, wrong = [place.line for place in places], {it.line for it in reader.problems}

    assert reader.total == len(filled)
    assert sorted(right) == right
    assert {*right, *wrong} - {None} == filled
    assert not {*right} & wrong
    for place, body in zip(places, bodies(path, places), strict=True):
        given = json.loads(lines_of_file[place.line - 1])
        assert (given["custom_id"], given["body"]) == (place.custom_id, json.loads(body))


@settings(deadline=None)
@given(content=st.one_of(broken_files(), st.binary(max_size=200)))
def test_every_line_of_a_broken_file_is_right_or_has_a_problem(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    check_broken(tmp_path_factory.getbasetemp() / "broken", content)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(
    deadline=None, max_examples=3_000, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(content=st.one_of(broken_files(), st.binary(max_size=2_000)))
def test_every_line_of_thousands_of_broken_files_is_right_or_has_a_problem(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    check_broken(tmp_path_factory.getbasetemp() / "broken", content)


def test_a_bom_crlf_blank_lines_and_no_last_newline_are_accepted(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf\r\n" + line("a") + b"\r\n\r\n  \n" + line("b"))

    places, reader = read(path)
    assert [(place.line, place.custom_id) for place in places] == [(2, "a"), (5, "b")]
    assert bodies(path, places) == [BODY, BODY]
    assert (reader.total, reader.problems) == (2, [])


def test_only_a_line_feed_ends_a_line(path: Path) -> None:
    ids = ["a\u2028b", "a\u0085b", "a\x7fb", "a\u2029b"]
    path.write_bytes(b"\n".join(map(line, ids)))

    assert [place.custom_id for place in read(path)[0]] == ids


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_requests_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert problems(path) == [("empty_file", None)]


def test_the_second_of_two_equal_custom_ids_is_refused(path: Path) -> None:
    path.write_bytes(b"\n".join([line("a"), line("b"), line("a"), b'\n{"custom_id": "b"}']))

    _, reader = read(path)
    assert reader.problems[0] == Problem(
        "duplicate_custom_id", "The custom_id 'a' duplicates another request's.", "custom_id", 3
    )
    assert {problem.code for problem in reader.problems[1:]} == {"missing_required_parameter"}


def test_custom_ids_that_spell_the_same_are_equal(path: Path) -> None:
    path.write_bytes(line("a") + b"\n" + line("a").replace(b'"a"', b'"\\u0061"'))

    assert problems(path) == [("duplicate_custom_id", 2)]


def test_problems_of_all_lines_are_told_in_line_order(path: Path) -> None:
    path.write_bytes(b"\n".join([b"x", line("a"), line(1), b"", b'{"method": "GET"}']))

    assert problems(path) == [
        ("invalid_json_line", 1),
        ("invalid_type", 3),
        ("missing_required_parameter", 5),
        ("invalid_method", 5),
        ("missing_required_parameter", 5),
        ("missing_required_parameter", 5),
    ]


def test_at_most_100_problems_are_told(path: Path) -> None:
    path.write_bytes(b'{"custom_id": "a"}\n' * 60)

    found = problems(path)
    assert len(found) == MAX_PROBLEMS == 100
    assert found[-1] == ("missing_required_parameter", 34)


def test_100_problems_are_all_even_in_a_file_with_too_many_lines(path: Path) -> None:
    path.write_bytes(b"x\n" * 101)

    found = problems(path, Limits(lines=100, line_bytes=MIB, file_bytes=MIB))
    assert found == [("invalid_json_line", number) for number in range(1, 101)]


def test_50_000_lines_are_accepted_and_come_in_pages(path: Path) -> None:
    path.write_bytes(lines(50_000))
    reader = InputReader(path, RULES, LIMITS)

    assert [place.line for place in reader.page()] == list(range(1, PAGE_LINES + 1))
    while reader.page():
        pass
    assert (reader.total, reader.problems) == (50_000, [])


def test_50_001_lines_are_refused(path: Path) -> None:
    path.write_bytes(lines(50_001))

    assert problems(path) == [("too_many_tasks", None)]


def test_a_file_that_is_too_large_is_refused_unread(path: Path) -> None:
    path.write_bytes(b"x\n" * 100)

    assert problems(path, Limits(lines=9, line_bytes=9, file_bytes=200)) != []
    assert problems(path, Limits(lines=9, line_bytes=9, file_bytes=199)) == [
        ("file_too_large", None)
    ]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b""])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(
    path: Path, bom: bytes, ending: bytes
) -> None:
    limits = Limits(lines=9, line_bytes=len(line("aa")), file_bytes=MIB)
    path.write_bytes(bom + line("aa") + ending)
    assert problems(path, limits) == []

    for longer in ("aaa", "a" * 5, "a" * 50):
        path.write_bytes(bom + line(longer) + ending)
        assert problems(path, limits) == [("line_too_long", 1)]


def test_after_a_line_that_is_too_long_the_others_are_read(path: Path) -> None:
    limits = Limits(lines=9, line_bytes=1_000, file_bytes=9 * MIB)
    path.write_bytes(b"\n".join([line("a"), b"x" * 3 * MIB, line("b"), b"y"]))

    places, reader = read(path, limits)
    assert [place.line for place in places] == [1, 3]
    assert bodies(path, places) == [BODY, BODY]
    assert [(it.code, it.line) for it in reader.problems] == [
        ("line_too_long", 2),
        ("invalid_json_line", 4),
    ]


def test_a_line_of_200_mb_is_refused_with_flat_memory(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * MIB)
    limits = Limits(lines=9, line_bytes=MIB, file_bytes=200 * MIB)
    tracemalloc.start()
    try:
        assert problems(path, limits) == [("line_too_long", 1)]
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"model": "m", "messages": [], "x": NaN}',
        b'{"model": "m", "messages": ["\\ud800"]}',
        b'{"model": "m", "messages": ["\x00"]}',
        b'{"model": "m", "messages": ["\xff"]}',
    ],
    ids=["deep", "nan", "surrogate", "nul", "latin-1"],
)
def test_what_is_not_json_spoils_its_own_line_only(path: Path, body: bytes) -> None:
    path.write_bytes(b"\n".join([line("a"), line("b", body), line("c")]))

    places, reader = read(path)
    assert [place.custom_id for place in places] == ["a", "c"]
    assert [(it.code, it.line) for it in reader.problems] == [("invalid_json_line", 2)]


def test_a_file_that_is_gone_says_so(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(path)
