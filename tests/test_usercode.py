"""Errors that come out of the user's code, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.errors import UsageError
from hpo.usercode import describe, import_user_module, on_one_line, traceback_of

TEXT = """
def fails(error):
    raise error
"""


def raised(folder: Path, error: BaseException) -> BaseException:
    """The error as a function of the user's raises it."""
    code: dict[str, object] = {}
    exec(compile(TEXT, folder / "my_model.py", "exec"), code)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is
        code["fails"](error)  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NameError("name 'boom' is not defined"), "NameError: name 'boom' is not defined (@)"),
        (SystemExit("bye"), "SystemExit: bye (@)"),
        (KeyboardInterrupt(), "KeyboardInterrupt: (@)"),
    ],
)
def test_an_error_is_told_with_its_place(error: BaseException, words: str, tmp_path: Path) -> None:
    place = f"{tmp_path / 'my_model.py'}, line 3"
    assert describe(raised(tmp_path, error)) == words.replace("@", place)


def test_an_error_without_text_and_place_is_its_kind() -> None:
    assert describe(MemoryError()) == "MemoryError"


def test_a_message_fits_on_one_line() -> None:
    text = "first\n\n  second\x1b[2J\ttab\x07 ünï \ud800"
    assert on_one_line(text) == r"first second\x1b[2J tab\x07 ünï \ud800"


def test_a_traceback_begins_in_the_user_s_code(tmp_path: Path) -> None:
    file = tmp_path / "raises_at_import.py"
    file.write_text("raise RuntimeError('no such luck')")
    with pytest.raises(UsageError) as caught:
        import_user_module(file.stem, tmp_path, UsageError)
    error = caught.value.__cause__
    assert error is not None
    head, first, *_, last = traceback_of(error).splitlines()
    assert head.startswith("Traceback")
    assert str(file) in first
    assert last == "RuntimeError: no such luck"
    # There may be none of it.
    error.__traceback__ = None
    assert traceback_of(error) == "RuntimeError: no such luck\n"
