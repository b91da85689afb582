"""What one thread prints is kept apart from what others print."""

from __future__ import annotations

import contextlib
import io
import sys
import threading

import pytest

from daskraster.printing import KEPT_CHARACTERS, captured


def test_only_the_thread_that_captures(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    inside, outside = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        print("other")  # noqa: T201
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    with captured() as printed:
        print("mine")  # noqa: T201
        inside.set()
        outside.wait(10)
        print("error", file=sys.stderr)  # noqa: T201
        sys.stdout.writelines(["a", "b"])
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding
    thread.join()
    assert str(printed) == "mine\nerror\nab"
    assert capsys.readouterr() == ("other\n", "")
    assert (sys.stdout, sys.stderr) == before


def test_nested_and_raising(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with captured() as outer:
        print("1")  # noqa: T201
        with pytest.raises(ValueError, match="no"), captured() as inner:
            print("2")  # noqa: T201
            raise ValueError("no")
        print("3")  # noqa: T201
    assert (str(outer), str(inner)) == ("1\n3\n", "2\n")
    assert sys.stdout is before
    assert capsys.readouterr().out == ""


def test_redirections_of_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = io.StringIO()
    with captured() as printed:
        with contextlib.redirect_stdout(theirs):
            print("redirected")  # noqa: T201
        print("kept")  # noqa: T201
    assert (theirs.getvalue(), str(printed)) == ("redirected\n", "kept\n")
    before = sys.stdout
    context = captured()
    context.__enter__()
    with contextlib.redirect_stdout(theirs):
        context.__exit__(None, None, None)
        assert sys.stdout is theirs
    # The redirection has put ours back, after its time: all goes through, and the next one takes it away.
    print("through")  # noqa: T201
    with captured():
        print("kept again")  # noqa: T201
    assert sys.stdout is before
    assert capsys.readouterr().out == "through\n"


def test_the_end_of_a_long_text() -> None:
    with captured() as printed:
        for number in range(10_000):
            print(f"line {number:05d}")  # noqa: T201
    text = str(printed)
    assert len(text) == KEPT_CHARACTERS + len("[...]")
    assert text.startswith("[...]")
    assert text.endswith("line 09999\n")


def test_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with captured() as printed:
        print("nowhere")  # noqa: T201
    assert sys.stdout is None
    assert str(printed) == ""


def test_bytes_are_refused() -> None:
    with captured(), pytest.raises(TypeError, match="must be str, not bytes"):
        sys.stdout.write(b"bytes")  # type: ignore[arg-type]
