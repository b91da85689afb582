"""The language of `calc`: what it takes, what it means, and where its messages point."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskraster.blocks.expressions import Expression
from daskraster.blocks.parsing import parse
from daskraster.errors import ExpressionError


def number(text: str, **numbers: float) -> float:
    """The value of an expression of constants."""
    expression = parse(text, (), numbers)
    (node,) = expression.nodes
    assert isinstance(node.value, int | float)
    return node.value


def tree(expression: Expression) -> str:
    """An expression with every bracket."""
    shown: list[str] = []
    for node in expression.nodes:
        arguments = ", ".join(shown[place] for place in node.arguments)
        shown.append(f"{node.operation}({arguments})" if node.arguments else str(node.value))
    return shown[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2^3^2", 512), ("2**3**2", 512), ("-2^2", -4), ("2^-1", 0.5), ("-2**2", -4), ("2*3+4", 10), ("2+3*4", 14),
        ("8-3-2", 3), ("64/4/2", 8), ("1 < 2", 1), ("(1<2) == 1", 1), ("1 ? 2 : 3", 2), ("0 ? 2 : 1 ? 4 : 5", 4),
        ("1 || 0 && 0", 1), ("!0", 1), ("!2", 0), ("~5", -6), ("6 & 3", 2), ("6 | 3", 7), ("4 | 2 & 3", 6),
        ("1 + 1 & 3", 2), ("5 & 1 == 1", 1), ("max(1, 5, 3)", 5), ("min(4)", 4), ("sum(1,2,3,4)", 10), ("avg(1,2,6)", 3),
        ("where(2 > 1, 7, 8)", 7), ("rint(2.5)", 3), ("rint(-2.5)", -2), ("sign(-3)", -1), ("abs(-3)", 3), ("ln(e)", 1),
        ("log(_e)", 1), ("log2(8)", 3), ("log10(1000)", 3), ("sqrt(16)", 4), ("sin(pi/2)", 1), ("cos(_pi)", -1),
        ("atan2(0, 1)", 0), ("arctan2(0, 1)", 0), ("1e3", 1000), (".5", 0.5), ("1.", 1), ("\n 1\t+ 1 ", 2),
        ("2^64 - 1", 2**64 - 1), ("123456789012345678901 - 123456789012345678900", 1), ("(-1)^9999999999999999", -1),
        ("+3", 3), ("--3", 3), ("gain*2", 1), ("exp(0)", 1), ("tanh(0)+sinh(0)+cosh(0)", 1), ("asin(0)+acos(1)+atan(0)+tan(0)", 0),
    ],
)  # fmt: skip
def test_values_of_constants(text: str, expected: float) -> None:
    assert number(text, gain=0.5) == pytest.approx(expected, rel=1e-15, abs=1e-16)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-b1^2", "neg(^(b1, 2))"),
        ("a < b && c == b || !a", "or(and(<(a, b), ==(c, b)), not(a))"),
        ("a & b == c", "==(&(a, b), c)"),
        ("a ? b : c ? a : b", "where(a, b, where(c, a, b))"),
        ("a + b - c", "-(+(a, b), c)"),
        ("a*2*3", "*(*(a, 2), 3)"),
        ("a*(2*3)", "*(a, 6)"),
        ("max(a, b, c)", "max(max(a, b), c)"),
        ("a - -b", "-(a, neg(b))"),
        ("a ? b > c : a", "where(a, >(b, c), a)"),
    ],
)
def test_what_binds_how(text: str, expected: str) -> None:
    assert tree(parse(text, ("a", "b", "c", "b1"))) == expected


def test_names_of_the_user_go_before_constants() -> None:
    assert parse("e + pi", ("e",)).variables == ("e",)
    assert parse("höhe_1 * 2", ("höhe_1",)).variables == ("höhe_1",)


@pytest.mark.parametrize(
    ("text", "place", "match"),
    [
        ("b1+rde", 3, "'rde' is no name.*did you mean red"),
        ("a<b<c", 3, "not chained"),
        ("a==b!=c", 4, "not chained"),
        ("a < b + 1 <= c", 10, "not chained"),
        ("9**9**9**9", 4, "not finite"),
        ("b1 + 1/0", 6, "not finite"),
        ("b1 + log(0)", 5, "not finite"),
        ("sqrt(-1)", 0, "not finite"),
        ("1e999", 0, "not finite"),
        ("2^1025", 1, "not finite"),
        ("9" * 400, 0, "not finite"),
        ("b1.real", 2, "no attributes"),
        ("b1[0]", 2, "image_b2"),
        ("__import__('os')", 11, "no text"),
        ("__import__(b1)", 0, "no function"),
        ("eval(b1)", 0, "no function"),
        ("sqr(b1)", 0, "did you mean sqrt"),
        ("b1(2)", 0, "is a raster"),
        ("sin(b1, b1)", 0, "takes one argument, got 2"),
        ("where(b1)", 0, "takes 3 arguments, got 1"),
        ("max()", 0, "at least one argument, got 0"),
        ("sin", 0, "is a function"),
        ("b1 b1", 3, "operator is missing"),
        ("2b1", 1, "operator is missing"),
        ("(b1", 0, "never closed"),
        ("b1)", 2, "never opened"),
        ("b1 +", 4, "missing at the end"),
        ("* b1", 0, "value is missing before"),
        ("b1 ? 2", 6, "wants a ':'"),
        ("b1 : 2", 3, "belongs into"),
        ("b1, 2", 2, "belongs into"),
        ("b1 = 2", 3, "write =="),
        ("b1 and red", 3, "operator is missing"),
        ("not b1", 0, "write !"),
        ("b1 + \u0663", 5, "has no meaning"),
        ("b1 + \uff11", 5, "has no meaning"),
        ("b1 + 2\u00b2", 6, "has no meaning"),
        ("1.5 & 2", 4, "bits of whole numbers"),
        ("f'{b1}'", 1, "no text"),
        ("b1 + inf_", 5, "no name"),
        ("b1 + huge", 5, "not finite"),
        ("lambda: b1", 0, "no name"),
    ],
)
def test_refused_with_a_caret_at_the_place(text: str, place: int, match: str) -> None:
    with pytest.raises(ExpressionError, match=match) as caught:
        parse(text, ("a", "b", "c", "b1", "red"), {"huge": float("inf")})
    shown, caret = str(caught.value).splitlines()[-2:]
    assert f"at character {place + 1}:" in str(caught.value)
    lead = 3 if "..." in shown[:6] else 0
    assert shown[2 + lead :].startswith(text[max(0, place - 60) : place + 1])
    assert caret.index("^") - 2 - lead == min(place, 60)


def test_the_caret_stands_in_the_line_of_several() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("red +\n  nix * 2\n+ 1", ("red",))
    assert str(caught.value).splitlines()[-2:] == ["    nix * 2", "    ^"]


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_texts_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="empty"):
        parse(text, ("b1",))


def test_lengths_and_depths() -> None:
    assert parse("+".join(["b1"] * 3333), ("b1",)).variables == ("b1",)
    with pytest.raises(ExpressionError, match="10001 characters"):
        parse("1" + "+1" * 5000, ("b1",))
    for opened, closed in (
        ("(", ")"),
        ("sin(", ")"),
        ("-", ""),
        ("b1^", ""),
        ("b1?1:", ""),
        ("b1?", ":1"),
        ("1+(", ")"),
    ):
        assert parse(opened * 100 + "b1" + closed * 100, ("b1",))
        with pytest.raises(ExpressionError, match="nested deeper than 100"):
            parse(opened * 101 + "b1" + closed * 101, ("b1",))


def test_long_texts_are_shown_in_part() -> None:
    text = "+".join(["b1"] * 100) + "+nix+" + "+".join(["b1"] * 100)
    with pytest.raises(ExpressionError) as caught:
        parse(text, ("b1",))
    shown, caret = str(caught.value).splitlines()[-2:]
    assert len(shown) < 100
    assert shown[caret.index("^") :].startswith("nix")


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ExpressionError, match="got int"):
        parse(3, ())  # type: ignore[arg-type]


_PARTS = ["b1", "red", "1", "2.5", "(", ")", "+", "-", "*", "/", "^", "**", "<", "==", "&&", "||", "?", ":", ",", "sin(", "max(", " ", "!", "~", "&", "e", ".", "9**9", "\n"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PARTS), max_size=25).map("".join)))
def test_any_text_gives_an_expression_or_an_expression_error(text: str) -> None:
    try:
        expression = parse(text, ("b1", "red"))
    except ExpressionError:
        return
    assert set(expression.variables) <= {"b1", "red"}


_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.Lt: operator.lt,
    ast.Eq: operator.eq,
    ast.GtE: operator.ge,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Invert: operator.invert,
}


def python_value(node: Any) -> Fraction:
    """A Python expression in exact arithmetic, by Python's own parser: what binds how is checked against that."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp):
        values, kind = [python_value(node.operand)], type(node.op)
    elif isinstance(node, ast.BinOp):
        values, kind = [python_value(node.left), python_value(node.right)], type(node.op)
    else:
        values, kind = [python_value(node.left), python_value(node.comparators[0])], type(node.ops[0])
    return Fraction(_OPERATORS[kind](*map(int, values)))


_LEAVES = st.integers(0, 9).map(str)
_TEXTS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", " & ", " | "]), inner).map("".join),
        st.tuples(inner, st.just("**"), st.sampled_from(["0", "1", "2"])).map("".join),
        st.tuples(st.sampled_from(["-", "~", "- "]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        st.tuples(inner, st.sampled_from([" < ", " == ", " >= "]), inner).map(lambda parts: f"({''.join(parts)})"),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(_TEXTS)
def test_what_python_reads_alike_has_pythons_value(text: str) -> None:
    parsed = ast.parse(text, mode="eval").body
    if any(isinstance(node, ast.Compare) and len(node.ops) > 1 for node in ast.walk(parsed)):
        return
    assert number(text) == python_value(parsed)
