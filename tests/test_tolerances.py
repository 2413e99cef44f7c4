"""Numbers that are held to less than float32's own precision have the reason beside them."""

import ast
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent
# About a hundred times float32's rounding: what a short computation may differ by in another order.
WITHOUT_A_REASON = 1e-5


def tolerances(statement: ast.stmt):
    """Lines and values of the tolerances that a statement spells out."""
    for node in ast.walk(statement):
        if isinstance(node, ast.keyword) and node.arg in ("rtol", "atol", "rel", "abs"):
            for number in ast.walk(node.value):
                if isinstance(number, ast.Constant) and isinstance(number.value, int | float):
                    yield number.lineno, number.value


def unexplained(source: str) -> list[int]:
    """Lines with a tolerance for which there is no comment in the statement, or right above it."""
    lines, found = ["", *source.splitlines()], []
    simple = (ast.Assert, ast.Assign, ast.Expr, ast.Return)
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, simple):
            around = lines[statement.lineno - 1 : statement.end_lineno + 1]
            explained = around[0].strip().startswith("#") or any("#" in line for line in around[1:])
            large = [line for line, value in tolerances(statement) if value > WITHOUT_A_REASON]
            found += [] if explained else large
    return found


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.py")), ids=lambda path: path.stem)
def test_a_wide_tolerance_has_its_reason_beside_it(path):
    assert unexplained(path.read_text()) == []


def test_a_tolerance_without_a_reason_is_found():
    call = "np.testing.assert_allclose(a, b, atol=1e-3)"
    assert unexplained(f"x = 1\n{call}") == [2]
    assert unexplained(f"# Rounded to thousandths.\n{call}") == unexplained(f"{call}  # rounded") == []
    assert unexplained("assert a == pytest.approx(b, rel=0.1)\nassert a == pytest.approx(b, rel=1e-6)") == [1]
