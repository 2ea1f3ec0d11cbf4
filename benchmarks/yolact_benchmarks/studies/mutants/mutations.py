"""Every small fault that a module's source can be given: one change of one expression or statement each.

Docstrings, annotations, decorators, ``__all__``, and the messages of errors and logs are not changed: text is covered
by other tests, and a type is not executed.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

__all__ = ["Mutation", "apply", "find_mutations"]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_COMMUTATIVE = {"max", "min", "maximum", "minimum"}
_LOG_METHODS = {"debug", "info", "warning", "error", "exception"}


@dataclass(frozen=True)
class Mutation:
    """One change of a module's text.

    Attributes:
        line: Line number of its beginning, counted from 1.
        text: Content of that line, without surrounding whitespace.
        kind: Kind of the change: ``comparison``, ``boolean``, ``arithmetic``, ``constant``, ``condition``, ``removed``,
            ``returned`` or ``swapped``.
        start: Offset of the first byte that is replaced, in UTF-8.
        end: Offset behind the last byte that is replaced.
        before: Source text that is replaced, on one line.
        after: Source text of the replacement.
    """

    line: int
    text: str
    kind: str
    start: int
    end: int
    before: str
    after: str

    @property
    def told(self) -> str:
        """Human-readable change, which does not depend on the position of the line in the module."""
        return f"{self.kind}: {self.before} -> {self.after}"


def apply(source: str, mutation: Mutation) -> str:
    """Return the module's source with this fault."""
    content = source.encode()
    return (content[: mutation.start] + mutation.after.encode() + content[mutation.end :]).decode()


def find_mutations(source: str) -> list[Mutation]:
    """Return all mutations of a source, in the order of the text."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutation: (mutation.start, mutation.end, mutation.after))


class _Finder(ast.NodeVisitor):
    """Visitor that notes what can be changed in a module."""

    def __init__(self, source: str) -> None:
        self.found: list[Mutation] = []
        self._content = source.encode()
        self._lines = [line.strip() for line in source.splitlines()]
        self._starts = [0]
        for line in self._content.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def _note(self, kind: str, node: ast.expr | ast.stmt, new: ast.AST | str) -> None:
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        after = new if isinstance(new, str) else ast.unparse(ast.fix_missing_locations(new))
        # In brackets, because the surrounding expression may bind more tightly.
        if isinstance(new, ast.expr) and not isinstance(new, (ast.Constant, ast.Name, ast.Call)):
            after = f"({after})"
        before = " ".join(self._content[start:end].decode().split())
        self.found.append(Mutation(node.lineno, self._lines[node.lineno - 1], kind, start, end, before, after))

    # --- what is not changed ---

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit defaults and the body, without decorators and annotations."""
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._visit_all(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit the body only."""
        self._visit_all(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Visit the value only."""
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip human-readable text."""

    def visit_Import(self, node: ast.Import) -> None:
        """Skip names."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Skip names."""

    def _visit_all(self, body: list[ast.stmt]) -> None:
        for statement in body:
            is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not is_text:
                self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        """Visit everything but the docstring."""
        self._visit_all(node.body)

    # --- statements ---

    def visit_Assign(self, node: ast.Assign) -> None:
        """Remove what is stored in an object; an assignment to a name must stay."""
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id == "__all__":
            return
        if isinstance(target, (ast.Subscript, ast.Attribute)):
            self._note("removed", node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Remove ``a += b``."""
        self._note("removed", node, "pass")
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Remove a call that is made for its effect, unless it is logging."""
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _LOG_METHODS:
            return
        if isinstance(call, ast.Call):
            self._note("removed", node, "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Remove the statement; the error's message is not changed."""
        self._note("removed", node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Replace ``continue`` by ``break``."""
        self._note("removed", node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        """Replace ``break`` by ``continue``."""
        self._note("removed", node, "continue")

    def visit_Return(self, node: ast.Return) -> None:
        """Return None in place of a value."""
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._note("returned", node, "return None")
        self.generic_visit(node)

    # --- expressions ---

    def visit_Compare(self, node: ast.Compare) -> None:
        """Shift the boundary, and take the opposite."""
        for position, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                operators = [*node.ops[:position], other(), *node.ops[position + 1 :]]
                self._note("comparison", node, ast.Compare(node.left, operators, node.comparators))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Exchange ``and`` and ``or``."""
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._note("boolean", node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Remove the sign, or the ``not``."""
        self._note("boolean" if isinstance(node.op, ast.Not) else "arithmetic", node, node.operand)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Take the opposite operator."""
        other = _ARITHMETIC.get(type(node.op))
        if other is not None:
            self._note("arithmetic", node, ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Take another number, another text, or the opposite truth value."""
        value = node.value
        if isinstance(value, bool):
            self._note("constant", node, ast.Constant(not value))
        elif isinstance(value, int):
            self._note("constant", node, ast.Constant(value + 1))
        elif isinstance(value, float):
            for factor in (2, 0.5):
                self._note("constant", node, ast.Constant(value * factor if value else factor))
        elif isinstance(value, str) and " " not in value:  # with a space, it is human-readable text
            self._note("constant", node, ast.Constant(f"{value}_"))

    def visit_Call(self, node: ast.Call) -> None:
        """Exchange the first two arguments."""
        first_two = node.args[:2]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        differ = len({ast.dump(argument) for argument in first_two}) == 2
        if differ and name not in _COMMUTATIVE and not any(isinstance(each, ast.Starred) for each in first_two):
            swapped = ast.Call(node.func, [first_two[1], first_two[0], *node.args[2:]], node.keywords)
            self._note("swapped", node, swapped)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        """Negate a condition that no other change negates."""
        if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            self._note("condition", test, ast.UnaryOp(ast.Not(), test))

    def visit_If(self, node: ast.If) -> None:
        """Negate the condition, and visit what is inside."""
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Negate the condition, and visit what is inside."""
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate the conditions, and visit what is inside."""
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)
