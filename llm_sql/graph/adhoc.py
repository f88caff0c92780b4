"""The first compile target: trees inside an ad hoc SELECT.

Each level of bindings is a derived table with OFFSET 0, which PostgreSQL neither merges into the query around
it nor evaluates twice, and through which a tensor passes as the same pointer:

    (SELECT pg_llm_add(x1, pg_llm_gelu(x1)) FROM (SELECT pg_llm_linear(...) AS x1 OFFSET 0) AS llm_sql_1)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import TextualSelect

from .elements import ROW, Constant, Node
from .program import Program, render
from .substitute import bind

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What a leaf inside a derived table still sees of the statement around the tree.
_INHERITED = frozenset({"literal_binds", "literal_execute", "render_postcompile"})


def select(
    trees: Node | Mapping[str, Node], values: Mapping[Any, Any] | None = None, **variables: Any
) -> sa.Select[Unpack[tuple[Any, ...]]]:
    """A SELECT of one row with a column per tree, named as in the mapping (one tree: `value`).

    Nodes that the trees share are evaluated once. `variables`, or `values`, give the trees' variables; what
    is not given stays a bind parameter of that name: `session.execute(select(logits), {"model": "m",
    "tokens": [1, 2]})`. The result is an ordinary Select over the derived table `graph`, open to further
    composition. A tree that reads columns of other tables stands in your own select() instead, where it is
    evaluated for each row.
    """
    named = {"value": trees} if isinstance(trees, Node) else dict(trees)
    if not named or not all(isinstance(tree, Node) for tree in named.values()):
        raise ArgumentError(
            "select() takes trees of llm_sql.graph; put expressions around them into sqlalchemy.select()"
        )
    # Names are part of the structure, and so of the statement cache's key.
    arguments: list[Constant | Node] = []
    for name, tree in named.items():
        arguments += [Constant.of(name), tree]
    row = bind(Node(ROW, arguments), {**(values or {}), **variables})
    if row._from_objects:
        tables = ", ".join(sorted({str(table) for table in row._from_objects}))
        raise ArgumentError(
            f"the tree reads columns of {tables}: put it into sqlalchemy.select(), which runs it for each row"
        )
    columns: list[Any] = [sa.column(name, tree.type) for name, tree in named.items()]
    rows = TextualSelect(cast(sa.TextClause, row), columns, positional=True)
    return sa.select(*rows.subquery("graph").c)


@compiles(Node)
def _compile_node(node: Node, compiler: SQLCompiler, **kw: Any) -> str:
    inherited = {key: value for key, value in kw.items() if key in _INHERITED}

    def leaf(element: ColumnElement[Any]) -> str:
        return compiler.process(element, **inherited)

    def constant(value: Constant) -> str:
        # The driver reads a statement with parameters as a format string.
        sql = value.sql()
        return sql.replace("%", "%%") if compiler.preparer._double_percents else sql

    names = [str(arg.value) for arg in node.args if isinstance(arg, Constant)] if node.call is ROW else []
    outputs = [arg for arg in node.args if isinstance(arg, Node)] if node.call is ROW else [node]
    program = Program(outputs)

    def expression(tree: Node, bind: bool = True) -> str:
        return render(tree, program=program, leaf=leaf, constant=constant, bind=bind)

    table = ""
    for level in range(1, program.levels + 1):
        passed_on = [b.name for b in program.bindings if b.level < level < program.last_use(b)]
        added = [
            f"{expression(b.node, bind=False)} AS {b.name}" for b in program.bindings if b.level == level
        ]
        table = f" FROM (SELECT {', '.join(passed_on + added)}{table} OFFSET 0) AS llm_sql_{level}"
    if node.call is ROW:
        quoted = [compiler.preparer.quote(name) for name in names]
        listed = [f"{expression(tree)} AS {name}" for tree, name in zip(outputs, quoted, strict=True)]
        return f"SELECT {', '.join(listed)}{table} OFFSET 0"
    return f"(SELECT {expression(node)}{table})" if table else expression(node)
