"""All the mutants of a source file: each is one small change that a careful reader would call a fault."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
# A pair's two images, and what else comes in twos: one name in the place of the other is the worst fault of this field.
SIDES = (("chosen", "rejected"), ("before", "after"), ("low", "high"), ("first", "last"))
LOGGERS = {"log", "logger", "logging", "warnings"}
# Text for readers: its numbers and conditions are no behaviour.
PROSE_KEYWORDS = {"description", "title", "examples", "summary", "help", "message"}


@dataclass(frozen=True)
class Mutant:
    """``start`` and ``end`` are offsets in the file's UTF-8 bytes; ``text`` replaces what lies between them.

    ``id`` names the place by function, kind and the changed line, so that it outlives edits elsewhere in the file.
    """

    id: str
    path: str
    line: int
    kind: str
    start: int
    end: int
    text: str
    before: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants_of(root: Path, path: Path) -> list[Mutant]:
    """In the order of the file; every one of them still parses."""
    source = (root / path).read_bytes()
    tree = ast.parse(source)
    found, seen = [], Counter[str]()
    starts = _line_starts(source)
    for scope, node, kind, text in _changes(tree, "", source, starts):
        start, end = _span(node, starts)
        before = source[start:end].decode()
        if before == text or not _parses(source[:start] + text.encode() + source[end:]):
            continue
        line = source.splitlines()[node.lineno - 1].strip()
        digest = hashlib.sha256(line + before.encode() + text.encode()).hexdigest()[:8]
        name = f"{path}:{scope or 'module'}:{kind}:{digest}"
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}#{seen[name]}"
        found.append(Mutant(name, str(path), node.lineno, kind, start, end, text, before))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.id))


Place = ast.expr | ast.stmt
Change = tuple[str, Place, str, str]


def _changes(node: ast.AST, scope: str, source: bytes, starts: list[int]) -> Iterator[Change]:
    """(function, node, kind, replacement) of every change below this node."""

    def text_of(part: ast.AST) -> str:
        start, end = _span(part, starts)
        return source[start:end].decode()

    for child in _behaviour(node):
        name = scope
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{scope}.{child.name}" if scope else child.name
        for target, kind, text in _changed(child, text_of):
            yield name, target, kind, text
        yield from _changes(child, name, source, starts)


def _behaviour(node: ast.AST) -> Iterator[ast.AST]:
    """The children that are executed for an effect: no annotations, docstrings, log lines, or texts of errors."""
    if _is_for_types(node):
        return
    if isinstance(node, ast.Call):
        if _is_log(node) or _is_for_readers(node):
            return
        yield node.func
        yield from node.args
        yield from (keyword.value for keyword in node.keywords if keyword.arg not in PROSE_KEYWORDS)
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "names", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield child


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _is_text(node: ast.AST) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.expr_context)


def _is_log(call: ast.Call) -> bool:
    root = call.func
    while isinstance(root, ast.Attribute | ast.Call):
        root = root.value if isinstance(root, ast.Attribute) else root.func
    return isinstance(root, ast.Name) and root.id in LOGGERS


def _is_for_readers(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name.endswith(("Error", "Exception", "TypeVar")) or name == "__init__"


def _changed(node: ast.AST, text_of: Callable[[ast.AST], str]) -> Iterator[tuple[Place, str, str]]:
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in COMPARISONS:
            yield node, "compare", f"{text_of(left)} {COMPARISONS[type(operator)]} {text_of(right)}"
        case ast.BoolOp(op=ast.And(), values=values):
            yield node, "and-or", "(" + " or ".join(f"({text_of(value)})" for value in values) + ")"
        case ast.BoolOp(op=ast.Or(), values=values):
            yield node, "and-or", "(" + " and ".join(f"({text_of(value)})" for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, "not", f"({text_of(operand)})"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield node, "sign", f"({text_of(operand)})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC and not _joins_text(node):
            yield node, "arithmetic", f"({text_of(left)} {ARITHMETIC[type(operator)]} {text_of(right)})"
        case ast.Constant(value=bool() as value):
            yield node, "constant", str(not value)
        case ast.Constant(value=int() as value):
            yield node, "constant", str(value + 1)
        case ast.Constant(value=float() as value):
            yield node, "constant", repr(value * 2 if value else 1.0)
        case ast.If() if _is_for_types(node):
            return
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not _is_simple(test):
            yield test, "condition", f"(not ({text_of(test)}))"
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield value, "return", "None"
        case ast.Expr(value=ast.Call() as call) if not _is_log(call):
            yield node, "delete", "pass"
        case ast.Expr(value=ast.Await()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield node, "delete", "pass"
    yield from _swapped(node, text_of)


def _swapped(node: ast.AST, text_of: Callable[[ast.AST], str]) -> Iterator[tuple[Place, str, str]]:
    """One of two for the other, and two neighbouring arguments that are names."""
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        text = text_of(node)
        word = text.rpartition(".")[2]
        for pair in SIDES:
            for this, other in (pair, pair[::-1]):
                if this in word.split("_"):
                    changed = "_".join(other if part == this else part for part in word.split("_"))
                    yield node, "side", text[: len(text) - len(word)] + changed
    if isinstance(node, ast.Call):
        for one, two in pairwise(node.args):
            if isinstance(one, ast.Name | ast.Attribute) and isinstance(two, ast.Name | ast.Attribute):
                both = ast.Tuple(elts=[one, two])
                both.lineno, both.col_offset = one.lineno, one.col_offset
                both.end_lineno, both.end_col_offset = two.end_lineno, two.end_col_offset
                yield both, "swap", f"{text_of(two)}, {text_of(one)}"


def _joins_text(node: ast.BinOp) -> bool:
    parts = (node.left, node.right)
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in parts
    )


def _is_simple(test: ast.expr) -> bool:
    """Changed by another kind already."""
    return isinstance(test, ast.Compare | ast.BoolOp) or (
        isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    )


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _line_starts(source: bytes) -> list[int]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _span(node: ast.AST, starts: list[int]) -> tuple[int, int]:
    """ast counts columns in bytes."""
    assert isinstance(node, ast.expr | ast.stmt)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


def _parses(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
