"""Writes what follows from the declarations of the ops, OP(...) in op_*.c beside this file.

    python kernels/postgres/ops/make_ops.py [--check]

ops.sql        CREATE FUNCTION and COMMENT of each op and of its backward
../bytea/ops.sql   the same of their overloads for bytea
op_list.h      the lists of ops that C code goes through

The results are committed, so that building the extension needs no Python. autograd/op.h says what a
declaration holds.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WIDTH = 120
HERE = Path(__file__).resolve().parent
WRITTEN = "Written by ops/make_ops.py from the declarations in ops/op_*.c: change those."

KINDS = {
    "TENSOR": "tensor",
    "INTEGERS": "integer[]",
    "INTEGER": "integer",
    "REAL": "double precision",
    "BOOLEAN": "boolean",
    "SITE": "text",
    "SETTINGS": "jsonb",
}


@dataclass(frozen=True)
class Argument:
    kind: str
    name: str
    text: str | None
    """A tensor's shape on bytea, the default of another argument, or with a colon its name on bytea."""

    @property
    def default(self) -> str:
        if self.kind == "TENSOR" or self.text is None or self.text.endswith(":"):
            return ""
        return f" DEFAULT {self.text}"

    @property
    def may_be_null(self) -> bool:
        return self.default == " DEFAULT NULL"

    @property
    def bytea_name(self) -> str:
        """Before a colon stands the name on bytea, where it is another one."""
        return self.text.split(":")[0] if self.text and ":" in self.text else self.name

    @property
    def sizes(self) -> list[str]:
        """The sizes that the shape leaves to SQL arguments."""
        axes = [axis.strip() for axis in (self.text or "").split(":")[-1].split(",")]
        return [axis.lstrip("0123456789 ") for axis in axes if axis and axis[0] not in "=*"]

    @property
    def told(self) -> list[str]:
        """The sizes that the bytea itself tells."""
        return re.findall(r"= *(\w+)", self.text or "")


@dataclass(frozen=True)
class Op:
    id: str
    name: str
    args: tuple[Argument, ...]
    doc: str
    bytea_doc: str
    is_number: bool
    bytea_args: int

    @property
    def tensors(self) -> list[Argument]:
        return [arg for arg in self.args if arg.kind == "TENSOR"]

    @property
    def has_bytea(self) -> bool:
        """An op about shapes has no overload for bytes, which have none."""
        return all(arg.text is not None for arg in self.tensors)

    @property
    def sizes(self) -> list[str]:
        told = {name for arg in self.tensors for name in arg.told}
        named = [name for arg in self.tensors for name in arg.sizes if name not in told]
        return list(dict.fromkeys(named))


# ---- reading C ----


def parts(text: str) -> Iterator[str]:
    """The text's top-level parts between commas; strings and brackets are whole."""
    depth = start = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[(){},]', text):
        if token[0] in "({":
            depth += 1
        elif token[0] in ")}":
            depth -= 1
        elif token[0] == "," and depth == 0:
            yield text[start : token.start()].strip()
            start = token.end()
    if text[start:].strip():
        yield text[start:].strip()


def string(text: str) -> str | None:
    """A C string, of adjacent literals; None for NULL."""
    literals = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return re.sub(r"\\(.)", r"\1", "".join(literals)) if literals else None


def argument(text: str) -> Argument:
    kind, inner = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    name, *rest = parts(inner)
    return Argument(kind, string(name) or "", string(rest[0]) if rest else None)


def declaration(text: str) -> Op:
    id_, *fields = parts(text)
    given = dict(re.fullmatch(r"\.(\w+) =\s+(.*)", field, re.DOTALL).groups() for field in fields)  # type: ignore[union-attr]
    doc = string(given["doc"]) or ""
    plain = doc.rstrip(".")
    return Op(
        id=id_,
        name=string(given["name"]) or "",
        args=tuple(argument(part) for part in parts(given["args"].strip("{}"))),
        doc=doc,
        bytea_doc=string(given.get("bytea_doc", "")) or plain[:1].lower() + plain[1:],
        is_number=given.get("is_number") == "true",
        bytea_args=int(given.get("bytea_args", "0")),
    )


def declarations() -> list[Op]:
    found = []
    for path in sorted(HERE.glob("op_*.c")):
        for start in re.finditer(r"^OP\(", path.read_text(), re.MULTILINE):
            text = path.read_text()[start.end() :]
            end = re.search(r"\);\n(?=\n|OP\(|$)", text)
            assert end is not None, f"{path.name}: a declaration without an end"
            found.append(declaration(text[: end.start()]))
    return found


# ---- writing SQL ----


def create(
    name: str, args: list[str], types: list[str], returns: str, symbol: str, doc: str, *, behaviour: str
) -> str:
    comment = with_list(f"COMMENT ON FUNCTION public.{name}", types, " IS")
    literal = literals(doc)
    return "\n".join(
        [
            with_list(f"CREATE FUNCTION public.{name}", args, ""),
            f"    RETURNS {returns}",
            f"    LANGUAGE c {behaviour}",
            f"    AS 'MODULE_PATHNAME', '{symbol}';",
            f"{comment} {literal};"
            if len(comment) + len(literal) < WIDTH - 1
            else f"{comment}\n    {literal};",
        ]
    )


def with_list(head: str, items: list[str], tail: str) -> str:
    """head(items)tail, on one line if it fits."""
    line = f"{head}({', '.join(items)}){tail}"
    return line if len(line) <= WIDTH else f"{head}(\n    " + filled(", ".join(items), items) + f"\n){tail}"


def filled(text: str, whole: list[str]) -> str:
    """The text in lines of WIDTH; none of `whole` is broken."""
    for item in whole:
        text = text.replace(item, item.replace(" ", "\0"))
    lines = textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join(lines).replace("\0", " ")


def literals(text: str) -> str:
    """A string literal, in several lines if it is long: SQL joins them."""
    escaped = text.replace("'", "''")
    if len(escaped) + 7 <= WIDTH:
        return f"'{escaped}'"
    lines = textwrap.wrap(escaped, WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join(f"'{line} '" for line in lines[:-1]) + f"\n    '{lines[-1]}'"


def pair(
    op: Op, type_: str, symbol: str, doc: str, *, number: str, sizes: list[str], n_args: int, pure: bool
) -> str:
    """The op's function and its backward, on tensors or on bytea."""
    on_bytea = type_ == "bytea"

    def name_of(arg: Argument) -> str:
        return arg.bytea_name if on_bytea else arg.name

    def type_of(arg: Argument) -> str:
        return type_ if arg.kind == "TENSOR" else KINDS[arg.kind]

    taken = op.args[:n_args]
    types = [*(type_of(arg) for arg in taken), *("integer" for _ in sizes)]
    args = [f"{name_of(a)} {type_of(a)}{'' if sizes else a.default}" for a in taken]
    args += [f"{size} integer" for size in sizes]
    result = number if op.is_number else type_
    outs = [f"OUT d{name_of(arg)} {type_}" for arg in op.tensors] if len(op.tensors) > 1 else []
    gradients = f"Gradient{'s' if outs else ''} of pg_llm_{op.name} from that of its output"
    if on_bytea:
        gradients = gradients[0].lower() + gradients[1:]
    else:
        gradients += (": " + ", ".join(out.split()[1] for out in outs) if outs else "") + "."
    behaviour = "IMMUTABLE STRICT PARALLEL SAFE" if pure else "VOLATILE STRICT PARALLEL RESTRICTED"
    if any(arg.may_be_null for arg in taken):
        behaviour = behaviour.replace(" STRICT", "")
    forward = create(f"pg_llm_{op.name}", args, types, result, symbol, doc, behaviour=behaviour)
    backward = create(
        f"pg_llm_{op.name}_backward",
        [f"dout {result}", *args, *outs],
        [result, *types],
        "record" if outs else type_,
        f"{symbol}_backward",
        gradients,
        behaviour=behaviour,
    )
    return f"{forward}\n\n{backward}"


def on_tensors(op: Op) -> str:
    return pair(
        op,
        "public.tensor",
        f"pg_llm_{op.id}",
        op.doc,
        number="public.tensor",
        sizes=[],
        n_args=len(op.args),
        pure=False,
    )


def on_bytea(op: Op) -> str:
    return pair(
        op,
        "bytea",
        f"pg_llm_bytea_{op.id}",
        op.bytea_doc,
        number="double precision",
        sizes=op.sizes,
        n_args=op.bytea_args or len(op.args),
        pure=all(arg.kind != "SITE" for arg in op.args[: op.bytea_args or None]),
    )


def header(ops: list[Op]) -> str:
    def macro(name: str, ids: list[str]) -> str:
        lines = [f"#define {name}(X)", *(f"    X({id_})" for id_ in ids)]
        return "".join(f"{line:<119}\\\n" for line in lines[:-1]) + lines[-1] + "\n"

    return "\n".join(
        [
            f"/* op_list.h -- every op. {WRITTEN} */",
            "#ifndef PG_LLM_OP_LIST_H",
            "#define PG_LLM_OP_LIST_H",
            "",
            macro("OP_LIST", [op.id for op in ops]),
            "/* Those that work on bytea, too. */",
            macro("BYTEA_OP_LIST", [op.id for op in ops if op.has_bytea]),
            "#endif",
            "",
        ]
    )


def results() -> dict[Path, str]:
    ops = declarations()
    volatile = (
        "-- Ops are VOLATILE: while a pass is recorded, each call is put on the tape, so it must run exactly"
        " once.\n-- Hence they cannot be used in generated columns or indexes.\n"
    )
    nothing = "-- Contiguous little-endian float32 whose sizes are arguments. Nothing here is recorded.\n"
    return {
        HERE / "ops.sql": f"-- The ops and their gradients.\n-- {WRITTEN}\n{volatile}\n"
        + "\n\n".join(on_tensors(op) for op in ops)
        + "\n",
        HERE.parent / "bytea/ops.sql": f"-- The ops and their gradients on bytea.\n-- {WRITTEN}\n{nothing}\n"
        + "\n\n".join(on_bytea(op) for op in ops if op.has_bytea)
        + "\n",
        HERE / "op_list.h": header(ops),
    }


def main() -> None:
    stale = [path for path, text in results().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.exit(
            "".join(f"{path.relative_to(HERE.parents[2])} is stale: run {sys.argv[0]}\n" for path in stale)
            or None
        )
    for path in stale:
        path.write_text(results()[path])


if __name__ == "__main__":
    main()
