"""One line that says how far a run is."""

from __future__ import annotations

from typing import Any

from daskraster.showing import progress_line


class Progress:
    """A tqdm bar counted in written blocks: a line on a terminal, a widget in Jupyter, nothing elsewhere or when not wanted."""

    def __init__(self, name: str, blocks: int, *, wanted: bool) -> None:
        self._nbytes = 0
        self._bar = progress_line(
            blocks,
            name,
            "block",
            wanted=wanted,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} blocks [{elapsed}<{remaining}{postfix}]",
        )

    def skip(self, blocks: int) -> None:
        """Blocks that an earlier run has finished."""
        self._bar.update(blocks)

    def add(self, nbytes: int) -> None:
        """One more block, of ``nbytes`` of pixels, is in the file."""
        self._nbytes += nbytes
        seconds = self._bar.format_dict["elapsed"]
        if seconds:
            self._bar.set_postfix_str(f"{self._nbytes / 1e6 / seconds:.0f} MB/s", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
