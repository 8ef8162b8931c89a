"""What somebody else's error becomes in a message of ours."""

from __future__ import annotations

from edgecv.errors import DataError, one_line


def test_a_message_is_one_line_of_so_many_characters() -> None:
    assert one_line(ValueError("a\n\t b" + " c" * 400)) == "a b" + " c" * 148 + " "
    assert one_line(ValueError("abcdef"), 3) == "abc"


def test_an_error_that_says_nothing_is_called_by_its_kind() -> None:
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line(ValueError(" \n")) == "ValueError"


def test_a_message_is_no_longer_than_a_reader_wants() -> None:
    error = DataError("set.json", f"is of category {'y' * 10_000_000!r}", "another")
    assert len(str(error)) < 5000
    assert str(error).startswith("set.json: is of category 'yyy")
    assert str(error).endswith("yyy' (another)")


def test_what_a_terminal_would_obey_is_shown() -> None:
    error = DataError("set\x1b[2J.json", "annotation \x00: no outline\x9b31m", "a\nb\tc é")
    assert str(error) == r"set\x1b[2J.json: annotation \x00: no outline\x9b31m (a" + "\nb\tc é)"
