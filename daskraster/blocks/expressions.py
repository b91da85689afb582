"""What an expression is: operators, functions, constants, and the table of nodes that a text becomes.

From the tightest to the loosest; one line binds alike, from left to right unless said otherwise::

    f(x)  (x)                     calls, brackets
    ^  **                         power, from right to left: 2^3^2 = 2^9
    -x  +x  !x  ~x                signs, logical not, bitwise not: -b1^2 = -(b1^2)
    *  /
    +  -
    &                             of integers bit by bit, of comparisons logical
    |
    <  <=  >  >=  ==  !=          never chained
    &&
    ||
    c ? a : b                     from right to left

The nodes stand in a table, each after its arguments and equal ones once: an expression of thousands of terms needs no recursion
anywhere, and pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daskraster.errors import ExpressionError
from daskraster.metadata import Number

BINARY: Mapping[str, tuple[str, int]] = {
    "||": ("or", 1),
    "&&": ("and", 2),
    "<": ("<", 3),
    "<=": ("<=", 3),
    ">": (">", 3),
    ">=": (">=", 3),
    "==": ("==", 3),
    "!=": ("!=", 3),
    "|": ("|", 4),
    "&": ("&", 5),
    "+": ("+", 6),
    "-": ("-", 6),
    "*": ("*", 7),
    "/": ("/", 7),
    "^": ("^", 9),
    "**": ("^", 9),
}
"""Sign -> operation and how tightly it binds."""
UNARY: Mapping[str, str] = {"-": "neg", "+": "pos", "!": "not", "~": "~"}
UNARY_BINDS = 8
COMPARISONS = frozenset(("<", "<=", ">", ">=", "==", "!="))
LOGICAL = frozenset(("and", "or", "not"))


@dataclass(frozen=True, slots=True)
class Function:
    """A function that expressions may call."""

    operation: str
    least: int
    """Fewest arguments."""
    most: int | None
    """Most arguments; None: any number."""

    def wants(self) -> str:
        """How many arguments, in words."""
        if self.most is None:
            return "at least one argument"
        return "one argument" if self.most == 1 else f"{self.most} arguments"


_ONE = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "sqrt", "sign", "rint", "abs")
FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(name, 1, 1) for name in (*_ONE, "log", "log2", "log10")},
    "ln": Function("log", 1, 1),
    **{f"arc{name}": Function(f"a{name}", 1, 1) for name in ("sin", "cos", "tan")},
    "atan2": Function("atan2", 2, 2),
    "arctan2": Function("atan2", 2, 2),
    **{name: Function(name, 1, None) for name in ("min", "max", "sum", "avg")},
    "minimum": Function("min", 2, 2),
    "maximum": Function("max", 2, 2),
    "where": Function("where", 3, 3),
}
"""Spelling -> function; muParser's and NumPy's."""
CONSTANTS: Mapping[str, float] = {
    "pi": 3.141592653589793,
    "_pi": 3.141592653589793,
    "e": 2.718281828459045,
    "_e": 2.718281828459045,
}


@dataclass(frozen=True, slots=True)
class Node:
    """A number, a variable, or an operation on nodes before it."""

    operation: str
    """``number``, ``variable``, or what is done."""
    arguments: tuple[int, ...] = ()
    """Places in the table."""
    value: Number | str | None = None
    """The number, or the variable's name."""
    position: int = 0
    """Where in the text it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A checked expression."""

    text: str
    nodes: tuple[Node, ...]
    """The last one is the result; every other is used by it."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that count, in the order in which they first stand in the table."""
        return tuple(str(node.value) for node in self.nodes if node.operation == "variable")


def refusal(text: str, position: int, message: str) -> ExpressionError:
    """An error that points at a place of the user's own text.

    >>> print(refusal("nir-rde", 4, "there is no 'rde'"))
    there is no 'rde', at character 5:
      nir-rde
          ^
    """
    position = min(position, len(text))
    begin = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    left, right = max(begin, position - 60), min(len(text) if end < 0 else end, position + 20)
    shown = "".join(char if char.isprintable() else " " for char in text[left:right])
    lead, tail = "..." if left > begin else "", "..." if right < (len(text) if end < 0 else end) else ""
    caret = " " * (len(lead) + position - left) + "^"
    return ExpressionError(f"{message}, at character {position + 1}:\n  {lead}{shown}{tail}\n  {caret}")
