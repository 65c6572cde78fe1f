"""Files that answers replace."""

from pathlib import Path

import pytest

from batch_api.client.output import OutputUnusable, check_targets, replacing


def test_two_that_write_the_same_file_at_once_leave_the_whole_of_one(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"

    with replacing(target) as first:
        first.write(b"first\n" * 2)
        with replacing(target) as second:
            second.write(b"second\n")
        assert target.read_bytes() == b"second\n"

    assert target.read_bytes() == b"first\n" * 2
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_goes_on_to_lead_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    file, link = tmp_path / "disk" / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(file)

    for content in (b"new\n", b"newer\n"):
        with replacing(link) as writer:
            writer.write(content)
        assert link.is_symlink()
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_takes_no_files_is_refused_before_anything_runs(tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to("/proc/out.jsonl")  # where not even root can write

    for output in (Path("/proc/out.jsonl"), link):
        with pytest.raises(OutputUnusable, match="Nothing can be written to the folder /proc"):
            check_targets(output)


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_targets(tmp_path / "out.jsonl")

    assert not list(tmp_path.iterdir())
