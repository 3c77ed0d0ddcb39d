"""Mutants of a module: every change of one operator, constant, argument or condition, as replacements of its text."""

import ast
from pathlib import Path
from typing import Iterator, List, NamedTuple, Tuple

COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "//", ast.Pow: "*"}


class Mutant(NamedTuple):
    """One change: the text at `start` to `end` (character offsets) of a file becomes `new`."""

    file: str  # relative to the project
    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str

    @property
    def id(self) -> str:
        return f"{self.file}:{self.start}:{self.kind}:{self.new}"

    def apply(self, root: Path) -> None:
        """Changes the file below `root`, which holds the same text as the one that the mutant was made from."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text[self.start : self.end] != self.old:
            raise ValueError(f"{self.file}: another text at {self.start} than {self.old!r}")
        path.write_text(text[: self.start] + self.new + text[self.end :], encoding="utf-8")


class _Source:
    """A file's text and the character offsets of its lines. Columns of `ast` count bytes, and code here is ASCII."""

    def __init__(self, root: Path, file: str) -> None:
        self.file = file
        self.text = (root / file).read_text(encoding="utf-8")
        if not self.text.isascii():
            raise ValueError(f"{file}: expected ASCII")
        self._starts = [0]
        for line in self.text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> Tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset  # type: ignore
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore

    def piece(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def replaced(self, node: ast.AST, kind: str, new: str) -> Mutant:
        start, end = self.span(node)
        return Mutant(self.file, node.lineno, kind, start, end, self.text[start:end], new)  # type: ignore


def mutants(root: Path, file: str) -> List[Mutant]:
    """All mutants of a module, in the order of its text. Annotations and mere words (of the log, of errors) are left
    alone."""
    source = _Source(root, file)
    tree = ast.parse(source.text)
    found = [mutant for node in _walk(tree) for mutant in _of(node, source)]
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.kind, mutant.new))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)


def _of(node: ast.AST, source: _Source) -> Iterator[Mutant]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = source.piece(node.left), source.piece(node.comparators[0])
        yield source.replaced(node, "comparison", f"({left}) {COMPARISONS[type(node.ops[0])]} ({right})")
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not isinstance(node.left, ast.Constant):
        left, right = source.piece(node.left), source.piece(node.right)
        yield source.replaced(node, "arithmetic", f"({left}) {ARITHMETIC[type(node.op)]} ({right})")
    elif isinstance(node, ast.BoolOp):
        joined = {ast.And: " or ", ast.Or: " and "}[type(node.op)].join(f"({source.piece(v)})" for v in node.values)
        yield source.replaced(node, "logic", f"({joined})")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield source.replaced(node, "sign", f"({source.piece(node.operand)})")
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        yield source.replaced(node, "constant", _another(node.value))
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield source.replaced(node.test, "condition", f"(not ({source.piece(node.test)}))")
    elif isinstance(node, ast.Call):
        yield from _of_call(node, source)


def _another(value: float) -> str:
    if type(value) is bool:
        return str(not value)
    return str(value + 1) if type(value) is int else repr(2 * value if value else 1.0)


def _of_call(node: ast.Call, source: _Source) -> Iterator[Mutant]:
    """The first two arguments exchanged; a keyword argument left out."""
    if len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args[:2]):
        first, second = node.args[:2]
        (start, _), (_, end) = source.span(first), source.span(second)
        between = source.text[source.span(first)[1] : source.span(second)[0]]
        new = source.piece(second) + between + source.piece(first)
        yield Mutant(source.file, first.lineno, "exchanged", start, end, source.text[start:end], new)
    for keyword in node.keywords:
        if keyword.arg:
            start, end = source.span(keyword)
            tail = len(source.text[end:]) - len(source.text[end:].lstrip(" \n,"))  # the comma after it
            old = source.text[start : end + tail]
            yield Mutant(source.file, keyword.value.lineno, "left out", start, end + tail, old, "")
