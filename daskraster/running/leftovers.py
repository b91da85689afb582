"""Partial files and journals that earlier runs have left beside a target: found by the target's name, trusted only where they are the user's own.

Names are made from the target's; no name is ever read from a journal. In a folder that others may write to, a journal that somebody else
put there is not read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daskraster.files import SUFFIX, TOKEN_NBYTES, partial_prefix
from daskraster.running.journal import Story, age, journal_path, read_start, read_story
from daskraster.running.locking import lock
from daskraster.writers import may_be_alive, told

# A partial file without a journal says not who writes it (a run that is computed later): old enough to be nobody's.
FORGOTTEN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """A partial file that no living run is known to write."""

    partial: Path
    journal: Path | None
    """None where there is none that could be used."""

    def __str__(self) -> str:
        """For messages: file, size, age."""
        size = self.partial.stat().st_size
        return f"{self.partial} ({size / 1e6:.1f} MB, last written {age(self.partial)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A journal that is now ours: open, locked, read."""

    partial: Path
    journal: Path
    descriptor: int
    story: Story


def remains_of(target: Path) -> tuple[list[Remains], list[str]]:
    """What earlier runs have left of a target, the newest first, and who is writing it just now.

    Nothing is kept open or locked.
    """
    found: list[Remains] = []
    busy: list[str] = []
    for partial in _partials(target):
        journal = journal_path(partial)
        with _locked(journal) as (descriptor, owner):
            if owner:
                busy.append(owner)
            elif descriptor is not None:
                start = read_start(descriptor)
                if start is None or start.get("target") == target.name:
                    found.append(Remains(partial=partial, journal=None if start is None else journal))
            elif _seconds_since(partial) > FORGOTTEN_SECONDS:
                found.append(Remains(partial=partial, journal=None))
    return sorted(found, key=lambda one: _seconds_since(one.partial)), busy


def open_journal(remains: Remains) -> Opened | None:
    """The journal of a partial file, open and locked; None where another run was faster, or it cannot be read any more."""
    if remains.journal is None:
        return None
    descriptor = _open_own(remains.journal)
    if descriptor is None:
        return None
    story = read_story(descriptor) if lock(descriptor) is not False else None
    if story is None:
        os.close(descriptor)
        return None
    return Opened(partial=remains.partial, journal=remains.journal, descriptor=descriptor, story=story)


def remove_orphans(target: Path) -> None:
    """Remove journals, and what lies beside them, whose partial file got its name just before the run was killed."""
    pattern = _pattern(target, re.escape(SUFFIX + ".journal"))
    with os.scandir(target.parent) as entries:
        journals = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
    for journal in journals:
        if journal.with_name(journal.name.removesuffix(".journal")).exists():
            continue
        with _locked(journal) as (descriptor, owner):
            start = None if owner or descriptor is None else read_start(descriptor)
            if start is not None and start.get("target") == target.name:
                _remove_beside(journal.with_name(journal.name.removesuffix(".journal")))
                journal.unlink(missing_ok=True)


def _remove_beside(partial: Path) -> None:
    """Remove what belongs to a partial file that is gone: the hidden sidecar, folders of claims."""
    pattern = re.compile(re.escape(partial.name) + r"\.(aux\.xml|extents(-[0-9]+)?(\.sealed)?)")
    with os.scandir(partial.parent) as entries:
        beside = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
    for path in beside:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _pattern(target: Path, suffix: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(partial_prefix(target))}[0-9a-f]{{{2 * TOKEN_NBYTES}}}{suffix}")


def _partials(target: Path) -> list[Path]:
    """Regular files of this user that are named as partial files of a target."""
    pattern = _pattern(target, re.escape(SUFFIX))
    with os.scandir(target.parent) as entries:
        paths = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
    own: list[Path] = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if _is_own(path.lstat()):
                own.append(path)
    return own


def _is_own(status: os.stat_result) -> bool:
    """Whether a file is a plain one that nobody else can have written or linked here."""
    private = not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and private


def _open_own(path: Path) -> int | None:
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:  # gone meanwhile, a link, or not ours to open
        return None
    if _is_own(os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def _locked(journal: Path) -> Iterator[tuple[int | None, str]]:
    """The open journal, locked for the moment, or who is at work on it; neither where there is none of ours."""
    descriptor = _open_own(journal)
    if descriptor is None:
        yield None, ""
        return
    try:
        locked = lock(descriptor)
        story = read_story(descriptor) if locked is not True else None
        owner = story.owner if story is not None else "a process that has just begun"
        if locked is False or (locked is None and may_be_alive(owner)):
            yield None, told(owner)
        else:
            yield descriptor, ""
    finally:
        os.close(descriptor)


def _seconds_since(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
