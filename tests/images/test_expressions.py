from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvproto.images.expressions import ExpressionError, evaluate, parse

OPERATORS = ("+", "-", "*", "/", "%", "<<", ">>", "&", "|", "^")


def value(text: str, **symbols: int) -> int:
    return evaluate(parse(text), symbols.__getitem__)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("1 << 4 + 1", 32),
        ("0xf0 | 0x0f & 3", 0xF3),
        ("6 ^ 3 | 8", 13),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("~0", -1),
        ("- - 5", 5),
        ("0b1010", 10),
        ("010", 10),
        ("'A'", 65),
        (r"'\n'", 10),
        (r"'\x41'", 65),
        ("'''", None),
        ("offset a + 4", 9),
        ("a.b", 6),
    ],
)
def test_value(text: str, result: int | None) -> None:
    if result is None:
        with pytest.raises(ExpressionError):
            value(text)
    else:
        assert evaluate(parse(text), {"a": 5, "a.b": 6}.__getitem__) == result


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "(1", "1)", "1 2", "'ab'", "0x", "0b2", "1 // 0", "1/0", "1 % 0", "1 << 64", "1 << -1", "$$", '"a"',
     "1 << 63 << 63", "18446744073709551616", "(" * 5000, "1" + "+1" * 5000, r"'\q'", "é", "[1]", "-" * 3000 + "1"],
)  # fmt: skip
def test_errors(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text)


def reference(operator: str, left: int, right: int) -> int | None:
    match operator:
        case "/" | "%":
            if right == 0:
                return None
            quotient = abs(left) // abs(right)
            quotient = quotient if (left >= 0) == (right > 0) else -quotient
            return quotient if operator == "/" else left - right * quotient
        case "<<" | ">>":
            if not 0 <= right < 64:
                return None
            return left << right if operator == "<<" else left >> right
    return {"+": left + right, "-": left - right, "*": left * right, "&": left & right, "|": left | right,
            "^": left ^ right}[operator]  # fmt: skip


def combined(parts: tuple[tuple[str, int | None], str, tuple[str, int | None]]) -> tuple[str, int | None]:
    (left_text, left), operator, (right_text, right) = parts
    result = None if left is None or right is None else reference(operator, left, right)
    if result is not None and abs(result) >= 1 << 64:
        result = None
    return f"({left_text}) {operator} ({right_text})", result


trees = st.recursive(
    st.integers(0, 1 << 33).map(lambda number: (str(number), number)),
    lambda inner: st.tuples(inner, st.sampled_from(OPERATORS), inner).map(combined),
    max_leaves=12,
)


@given(trees)
def test_random_expressions(tree: tuple[str, int | None]) -> None:
    text, wanted = tree
    if wanted is None:
        with pytest.raises(ExpressionError):
            value(text)
    else:
        assert value(text) == wanted


@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.data())
def test_precedence_is_that_of_python(numbers: list[int], data: st.DataObject) -> None:
    operators = data.draw(
        st.lists(st.sampled_from(["+", "-", "*", "&", "|", "^"]), min_size=len(numbers) - 1, max_size=len(numbers) - 1)
    )
    text = str(numbers[0]) + "".join(f" {o} {n}" for o, n in zip(operators, numbers[1:], strict=True))
    assert value(text) == eval(text)


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_an_expression_error(text: str) -> None:
    try:
        evaluate(parse(text), lambda name: 1)
    except ExpressionError:
        pass
