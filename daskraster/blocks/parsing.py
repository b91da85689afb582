"""Text to a checked expression: names, functions and literals only; nothing is ever handed to Python's own eval."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from daskraster.blocks.expressions import (
    BINARY,
    COMPARISONS,
    CONSTANTS,
    FUNCTIONS,
    UNARY,
    UNARY_BINDS,
    Expression,
    Node,
    refusal,
)
from daskraster.blocks.folding import folded
from daskraster.errors import ExpressionError
from daskraster.hints import near
from daskraster.metadata import Number

LONGEST = 10_000
"""Characters of a text."""
DEEPEST = 100
"""Brackets, calls, signs, powers and choices inside one another."""

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<sign>\*\*|<=|>=|==|!=|&&|\|\||[-+*/^<>&|~!?:(),])"
)
_HINTS = {
    "=": "; to compare, write ==",
    "[": "; a band of a raster named image is written image_b2",
    ".": "; names, functions and numbers are all there is, no attributes",
    "'": "; there is no text in an expression",
    '"': "; there is no text in an expression",
    "%": "; there is no remainder",
}
_WORDS = {"and": "&&", "or": "||", "not": "!", "if": "c ? a : b", "else": "c ? a : b"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(
    text: str, variables: Collection[str], numbers: Mapping[str, Number] | None = None, known: str | None = None
) -> Expression:
    """A text as a checked expression, its constant parts computed.

    Parameters
    ----------
    text
        In muParser's or NumPy's spelling; see `daskraster.blocks.expressions` for what binds how.
    variables
        Names it may use. They go before the constants ``pi`` and ``e``.
    numbers
        Names that stand for a number.
    known
        What messages say there is; None: the names themselves.

    Raises
    ------
    ExpressionError
        The text is empty, longer than 10,000 characters, nested deeper than 100, uses what there is not, calls a function with a wrong
        number of arguments, chains comparisons, or has a constant part that is not finite. It points at the place.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"an expression is a text, as in calc('b1+1', image); got {type(text).__name__}")
    if len(text) > LONGEST:
        raise refusal(text, LONGEST, f"the expression has {len(text)} characters; possible are {LONGEST}")
    if not text.strip():
        raise ExpressionError("the expression is empty; as in calc('b1+1', image)")
    parser = _Parser(text, frozenset(variables), dict(numbers or {}), known)
    try:
        return parser.whole()
    except RecursionError as error:
        raise ExpressionError(
            f"the expression is nested too deeply for what is left of Python's stack; possible are {DEEPEST} levels from a shallow one"
        ) from error


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        found = _TOKEN.match(text, position)
        if found is None or (found.lastgroup == "name" and not found.group().isidentifier()):
            char = text[position]
            raise refusal(text, position, f"{char!r} has no meaning in an expression{_HINTS.get(char, '')}")
        tokens.append(_Token(str(found.lastgroup), found.group(), position))
        position = found.end()
    return [*tokens, _Token("end", "", len(text))]


class _Table:
    """The nodes so far; equal ones once, constants computed as they come."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.nodes: list[Node] = []
        self._places: dict[tuple[object, ...], int] = {}

    def put(self, node: Node) -> int:
        # By repr: 1, 1.0 and -0.0 are three numbers.
        key = (node.operation, node.arguments, repr(node.value))
        if key not in self._places:
            self._places[key] = len(self.nodes)
            self.nodes.append(node)
        return self._places[key]

    def apply(self, operation: str, arguments: tuple[int, ...], position: int) -> int:
        """The place of an operation on nodes; of a number where all of them are.

        Raises
        ------
        ExpressionError
            It does not work on such numbers, or gives none.
        """
        nodes = [self.nodes[place] for place in arguments]
        values = [node.value for node in nodes if isinstance(node.value, int | float)]
        if operation == "pos":
            return arguments[0]
        if len(values) == len(nodes):
            try:
                value = folded(operation, values)
            except TypeError:
                raise refusal(
                    self.text, position, f"{operation!r} works on the bits of whole numbers and on comparisons"
                ) from None
            if value is None:
                raise refusal(self.text, position, "this constant part of the expression is not finite")
            return self.put(Node("number", value=value, position=nodes[0].position))
        return self.put(Node(operation, arguments, position=position))

    def expression(self, root: int) -> Expression:
        """The nodes that the root needs, the root last."""
        needed = {root}
        for place in range(root, -1, -1):
            if place in needed:
                needed.update(self.nodes[place].arguments)
        order = {old: new for new, old in enumerate(sorted(needed))}
        nodes = tuple(
            replace(self.nodes[old], arguments=tuple(order[place] for place in self.nodes[old].arguments))
            for old in order
        )
        return Expression(text=self.text, nodes=nodes)


class _Parser:
    """Precedence climbing over the tokens."""

    def __init__(self, text: str, variables: frozenset[str], numbers: dict[str, Number], known: str | None) -> None:
        self._text, self._variables, self._numbers = text, variables, numbers
        self._known = known if known is not None else ", ".join(sorted(variables | numbers.keys()))
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0
        self._table = _Table(text)

    def whole(self) -> Expression:
        """All of the text.

        Raises
        ------
        ExpressionError
            It does not follow the grammar; with the place.
        """
        root = self._choice()
        token = self._tokens[self._place]
        if token.kind != "end":
            raise self._unexpected(token)
        return self._table.expression(root)

    def _next(self) -> _Token:
        token = self._tokens[self._place]
        self._place += token.kind != "end"
        return token

    def _peek(self) -> str:
        token = self._tokens[self._place]
        return token.text if token.kind == "sign" else ""

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise refusal(self._text, token.position, f"the expression is nested deeper than {DEEPEST}")

    def _choice(self) -> int:
        """``c ? a : b``, or what binds tighter."""
        condition = self._binary(1)
        if self._peek() != "?":
            return condition
        token = self._next()
        self._deeper(token)
        chosen = self._choice()
        if self._peek() != ":":
            raise refusal(
                self._text, self._tokens[self._place].position, "'?' wants a ':' and a second value, as in c ? a : b"
            )
        self._next()
        other = self._choice()
        self._depth -= 1
        return self._table.apply("where", (condition, chosen, other), token.position)

    def _binary(self, least: int) -> int:
        left = self._prefix()
        compared = False
        while True:
            operation, binds = BINARY.get(self._peek(), ("", 0))
            if binds < least or not operation:
                return left
            token = self._next()
            if compared and operation in COMPARISONS:
                raise refusal(
                    self._text, token.position, "comparisons are not chained; write (a < b) && (b < c), or set brackets"
                )
            compared = operation in COMPARISONS
            if operation == "^":
                self._deeper(token)
                right = self._binary(binds)
                self._depth -= 1
            else:
                right = self._binary(binds + 1)
            left = self._table.apply(operation, (left, right), token.position)

    def _prefix(self) -> int:
        """A number, a name, a call, brackets, or a sign before any of them."""
        token = self._next()
        if token.kind == "number":
            return self._table.put(Node("number", value=self._number(token), position=token.position))
        if token.kind == "name":
            return self._call(token) if self._peek() == "(" else self._name(token)
        if token.text in UNARY:
            self._deeper(token)
            place = self._table.apply(UNARY[token.text], (self._binary(UNARY_BINDS),), token.position)
            self._depth -= 1
            return place
        if token.text != "(":
            raise self._unexpected(token)
        self._deeper(token)
        place = self._choice()
        self._close(token)
        return place

    def _close(self, opened: _Token) -> None:
        if self._peek() != ")":
            token = self._tokens[self._place]
            if token.kind == "end":
                raise refusal(self._text, opened.position, "this bracket is never closed")
            raise self._unexpected(token)
        self._next()
        self._depth -= 1

    def _number(self, token: _Token) -> Number:
        # Python itself refuses texts of more than 4300 digits as int.
        whole = token.text.isdecimal() and len(token.text) < 400
        value = int(token.text) if whole else float(token.text)
        if folded("+", (value, 0)) is None:
            raise refusal(self._text, token.position, "this number is not finite")
        return value

    def _name(self, token: _Token) -> int:
        name = token.text
        if name in self._variables:
            return self._table.put(Node("variable", value=name, position=token.position))
        if name in self._numbers or name in CONSTANTS:
            value = self._numbers[name] if name in self._numbers else CONSTANTS[name]
            if folded("+", (value, 0)) is None:
                raise refusal(self._text, token.position, f"{name}={value} is not finite")
            return self._table.put(Node("number", value=value, position=token.position))
        if name in FUNCTIONS:
            raise refusal(self._text, token.position, f"{name} is a function: write {name}(...)")
        names = [*self._variables, *self._numbers, *CONSTANTS]
        hint = f"; write {_WORDS[name]}" if name in _WORDS else near(name, sorted(names))
        raise refusal(
            self._text,
            token.position,
            f"{name!r} is no name of this expression{hint}; there are {self._known}, pi, e; another raster gets its name as {name}=raster",
        )

    def _call(self, token: _Token) -> int:
        function = FUNCTIONS.get(token.text)
        opened = self._next()
        if function is None:
            what = "a raster" if token.text in self._variables else "no function of expressions"
            raise refusal(
                self._text,
                token.position,
                f"{token.text!r} is {what}{near(token.text, sorted(FUNCTIONS))}; there are {', '.join(sorted(FUNCTIONS))}",
            )
        self._deeper(opened)
        arguments: list[int] = []
        if self._peek() != ")":
            arguments.append(self._choice())
            while self._peek() == ",":
                self._next()
                arguments.append(self._choice())
        self._close(opened)
        if len(arguments) < function.least or (function.most is not None and len(arguments) > function.most):
            raise refusal(self._text, token.position, f"{token.text} takes {function.wants()}, got {len(arguments)}")
        return self._applied(function.operation, arguments, token.position)

    def _applied(self, operation: str, arguments: Sequence[int], position: int) -> int:
        """A call; of many arguments as operations on two."""
        if operation not in ("min", "max", "sum", "avg"):
            return self._table.apply(operation, tuple(arguments), position)
        step = operation if operation in ("min", "max") else "+"
        place = arguments[0]
        for argument in arguments[1:]:
            place = self._table.apply(step, (place, argument), position)
        if operation == "avg":
            count = self._table.put(Node("number", value=len(arguments), position=position))
            place = self._table.apply("/", (place, count), position)
        return place

    def _unexpected(self, token: _Token) -> ExpressionError:
        before = self._tokens[self._tokens.index(token) - 1] if token is not self._tokens[0] else None
        value_before = before is not None and (before.kind in ("number", "name") or before.text == ")")
        if token.kind == "end":
            message = "a value is missing at the end"
        elif value_before and (token.kind in ("number", "name") or token.text == "("):
            message = f"between this and what stands before it an operator is missing (got {token.text!r})"
        elif token.text == ")" and value_before:
            message = "this bracket was never opened"
        elif token.text in (":", ",") and value_before:
            message = f"{token.text!r} belongs into {'c ? a : b' if token.text == ':' else 'the brackets of a call'}"
        else:
            message = f"a value is missing before {token.text!r}"
        return refusal(self._text, token.position, message)
