"""The command ``daskraster``: each of its commands calls one public function; names and defaults are Python's.

Nothing here imports more than click and the ground floor: ``daskraster --help`` and the Tab key answer at once. The public functions are looked up in the
package, which loads them then.
"""

from daskraster.cli.commands import main

__all__ = ["main"]
