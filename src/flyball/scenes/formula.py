"""Formulas as data: arithmetic over named parameters, and nothing else.

In: text such as ``0.4 * object.mass ** 2`` or ``where('geom:box.friction' > 0.5, 1, 2)``. Out: values per world.

A formula knows numbers, paths (dotted names as they are, others in quotes), ``+ - * / **`` with an integer or half
exponent, comparisons, and the functions of ``FUNCTIONS``. It is read by Python's parser and interpreted by this module;
nothing is executed: no name but the paths, no attribute, no call but these.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flyball.base import InputError, Missing
from flyball.scenes import portable
from flyball.scenes.portable import Array

MOST_CHARACTERS, MOST_DEPTH = 1000, 40

FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "sqrt": (1, np.sqrt),
    "exp": (1, portable.exp),
    "log": (1, portable.log),
    "sin": (1, lambda x: portable.sincos(x)[0]),
    "cos": (1, lambda x: portable.sincos(x)[1]),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "clip": (3, np.clip),
    "where": (3, lambda c, a, b: np.where(np.asarray(c, float) != 0, a, b)),
}
"""Name -> (number of arguments, function)."""

_BINARY: Mapping[type, Callable[..., Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide,
}  # fmt: skip
_COMPARE: Mapping[type, Callable[..., Any]] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal,
    ast.Eq: np.equal, ast.NotEq: np.not_equal,
}  # fmt: skip


@dataclass(frozen=True)
class Parsed:
    """A formula that holds nothing but what is allowed."""

    text: str
    tree: ast.expr
    paths: set[str]


@lru_cache(maxsize=1024)
def parse(text: str) -> Parsed:
    """Read a formula.

    Raises:
      InputError: naming what is not allowed.
    """
    if not isinstance(text, str) or not 0 < len(text.strip()) <= MOST_CHARACTERS:
        raise InputError(
            f"a formula of {len(str(text))} characters", where="formula", allowed=f"1 to {MOST_CHARACTERS}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise InputError(f"cannot read {text!r}", where="formula", allowed="e.g. 0.4 * object.mass ** 2") from err
    paths: set[str] = set()
    _check(tree, text, paths, 0)
    return Parsed(text, tree, paths)


def _path(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _path(node.value) if not isinstance(node.value, ast.Constant) else None
        return None if before is None else f"{before}.{node.attr}"
    return None


def _plain(node: ast.expr) -> float | None:
    """A literal number; infinite when it is too large, None when it is something else."""
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        return None
    try:
        return float(node.value)
    except OverflowError:
        return float("inf")


def _exponent(node: ast.expr) -> float | None:
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1.0, node.operand
    size = _plain(node)
    return sign * size if size is not None and 2 * size in range(17) else None


def _check(node: ast.expr, text: str, paths: set[str], depth: int) -> None:
    def refuse(what: str, allowed: str) -> InputError:
        return InputError(f"{what} in {text!r}", where="formula", allowed=allowed)

    if depth > MOST_DEPTH:
        raise refuse(f"more than {MOST_DEPTH} nested terms", "a shorter formula")
    path = _path(node)
    if path is not None:
        paths.add(path)
        return
    inner: list[ast.expr] = []
    number = _plain(node)
    if number is not None:
        if not np.isfinite(number):
            raise refuse("a number that is not finite", "finite numbers")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        inner = [node.operand]
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        inner = [node.left, node.right]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        if _exponent(node.right) is None:
            raise refuse("an exponent", "0, 0.5, 1, 1.5 ... 8, or their negatives")
        inner = [node.left]
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        inner = [node.left, node.comparators[0]]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id not in FUNCTIONS:
            raise Missing.named("function", node.func.id, FUNCTIONS, where=f"formula {text!r}")
        if len(node.args) != FUNCTIONS[node.func.id][0]:
            raise refuse(f"{node.func.id} with {len(node.args)} arguments", str(FUNCTIONS[node.func.id][0]))
        inner = node.args
    else:
        part = ast.get_source_segment(text.strip(), node) or type(node).__name__
        raise refuse(f"{part!r}", "numbers, paths, + - * / **, comparisons, " + ", ".join(FUNCTIONS))
    for x in inner:
        _check(x, text, paths, depth + 1)


def evaluate(formula: Parsed, known: Mapping[str, Array], n: int, *, where: str) -> Array:
    """Values per world, (n,).

    Args:
      known: path -> (n,).

    Raises:
      Missing: a path that is not known.
      InputError: a result that is not finite (division by zero, logarithm of a negative number).
    """
    for path in sorted(formula.paths):
        if path not in known:
            raise Missing.named("parameter", path, known, where=f"{where} formula {formula.text!r}")
    with np.errstate(all="ignore"):
        out = np.broadcast_to(np.asarray(_value(formula.tree, known), float), (n,)).copy()
    if not np.all(np.isfinite(out)):
        raise InputError(f"the formula {formula.text!r} gives {out[~np.isfinite(out)][0]}", where=where)
    return out


def _value(node: ast.expr, known: Mapping[str, Array]) -> Any:
    path = _path(node)
    if path is not None:
        return known[path]
    if isinstance(node, ast.Constant):
        return _plain(node)
    if isinstance(node, ast.UnaryOp):
        x = _value(node.operand, known)
        return -x if isinstance(node.op, ast.USub) else x
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power(_value(node.left, known), _exponent(node.right) or 0.0)
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, known), _value(node.right, known))
    if isinstance(node, ast.Compare):
        left, right = _value(node.left, known), _value(node.comparators[0], known)
        return np.asarray(_COMPARE[type(node.ops[0])](left, right), float)
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return FUNCTIONS[node.func.id][1](*(_value(x, known) for x in node.args))


def _power(x: Any, exponent: float) -> Any:
    """By multiplication and square root, which every machine rounds alike."""
    out, size = np.ones_like(np.asarray(x, float)), abs(exponent)
    for _ in range(int(size)):
        out = out * x
    if size % 1:
        out = out * np.sqrt(x)
    return 1 / out if exponent < 0 else out
