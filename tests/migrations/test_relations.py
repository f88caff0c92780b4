"""What the provisioned relations hold and refuse: seeds, constraints, generated columns, views."""

from __future__ import annotations

import struct

import psycopg
import pytest

from llm_sql.models import ARCHITECTURE_ROWS, MODELS, Param
from llm_sql.models.objects import parse_script, split_statements


@pytest.fixture
def rows(at_head):
    """Runs a statement on one session of a provisioned database and gives its rows."""
    with at_head.connect() as connection:

        def run(statement, *parameters):
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

        yield run


def test_seeds_are_the_declared_ones(rows):
    columns = list(MODELS[0])
    seeded = {row[0]: row for row in rows(f"SELECT {', '.join(columns)} FROM llm_model_config")}
    assert seeded == {model["model"]: tuple(model.values()) for model in MODELS}
    names = {row["arch"] for row in ARCHITECTURE_ROWS}
    assert {name for (name,) in rows("SELECT arch FROM llm_arch")} == names
    assert seeded["gpt3-1.3b"][2:7] == (24, 16, 2048, 2048, 50257)
    assert seeded["microgpt"][2:7] == (1, 4, 16, 16, 27)


def test_architectures_name_functions_that_exist(rows):
    names = "SELECT to_regproc(forward), to_regproc(parameters) FROM llm_arch"
    assert all(forward and parameters for forward, parameters in rows(names))


@pytest.mark.parametrize("column", ["n_layer", "n_head", "d_model", "n_positions", "vocab", "d_ff"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_are_positive(module_connection, column, value):
    sizes = {"n_layer": 1, "n_head": 1, "d_model": 8, "n_positions": 8, "vocab": 8, "d_ff": 8} | {
        column: value
    }
    with pytest.raises(psycopg.errors.CheckViolation):
        module_connection.execute(
            f"INSERT INTO llm_model_config (model, {', '.join(sizes)}) VALUES ('m', %s, %s, %s, %s, %s, %s)",
            list(sizes.values()),
        )


@pytest.fixture(scope="module")
def module_connection(server, module_database):
    with psycopg.connect(server.url(module_database), autocommit=True) as connection:
        yield connection


def test_heads_divide_the_width_and_seven_columns_do(rows):
    insert = "INSERT INTO llm_model_config (model, arch, n_layer, n_head, d_model, n_positions, vocab) VALUES"
    with pytest.raises(psycopg.errors.CheckViolation, match="d_head"):
        rows(f"{insert} ('m', 'gpt2', 1, 3, 8, 8, 8)")
    rows(f"{insert} ('m', 'gpt2', 1, 2, 8, 8, 8)")
    assert rows("SELECT layer_norm_eps, tied, d_ff FROM llm_model_config WHERE model = 'm'") == [
        (1e-5, True, None)
    ]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        rows(f"{insert} ('n', 'no such architecture', 1, 2, 8, 8, 8)")


def test_layer_comes_from_the_name(rows):
    names = {
        "h.0.ln_1.weight": 0,
        "h.11.mlp.c_fc.bias": 11,
        "wte.weight": None,
        "ln_f.bias": None,
        "h.x.y": None,
    }
    names["h.99999999999999.ln_1.weight"] = None
    for name in names:
        rows("INSERT INTO llm_param (model, name, data) VALUES ('microgpt', %s, '[0]'::tensor)", name)
    assert dict(rows("SELECT name, layer FROM llm_param")) == names


def test_parameters_are_stored_uncompressed(rows):
    storage = (
        "SELECT DISTINCT attstorage::text FROM pg_attribute"
        " WHERE attrelid = 'llm_param'::regclass AND attname = ANY (%s)"
    )
    columns = [column.name for column in Param.__table__.columns if column.name in ("data", "grad", "m", "v")]
    assert rows(storage, columns) == [("e",)]


def test_sequences_and_targets_have_one_length(rows):
    for values in ("'{1,2}', '{1}'", "'{{1,2}}', '{{1,2}}'"):
        with pytest.raises(psycopg.errors.CheckViolation):
            rows(f"INSERT INTO llm_dataset (tokens, target) VALUES ({values})")
    rows("INSERT INTO llm_dataset (split, tokens, target) VALUES ('validation', '{1,2}', '{2,-1}')")
    assert rows("SELECT model, seq, target FROM llm_heldout") == [(None, [1, 2], [2, -1])]


def test_one_current_log_row_per_step(rows):
    rows("INSERT INTO llm_train_run (model) VALUES ('microgpt'), ('microgpt')")
    insert = "INSERT INTO llm_train_log (run_id, step, model, superseded) VALUES (%s, 1, 'microgpt', %s)"
    rows(insert, 1, False)
    with pytest.raises(psycopg.errors.UniqueViolation):
        rows(insert, 2, False)
    rows("UPDATE llm_train_log SET superseded = true")
    rows(insert, 2, False)
    clip = "INSERT INTO llm_clip (tape_id, clip_threshold, applied_norm) VALUES (%s, 1, 2)"
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        rows(clip, 10**9)
    rows(clip, rows("SELECT max(tape_id) FROM llm_train_log")[0][0])


def test_step_view_shows_the_tape(rows):
    rows("INSERT INTO llm_train_run (model) VALUES ('microgpt')")
    rows(
        "INSERT INTO llm_train_log (run_id, step, model, loss, grad_norm) VALUES (1, 7, 'microgpt', 2.5, 0.5)"
    )
    assert rows("SELECT step, activations, loss, grad_norm FROM llm_step") == [(7, None, 2.5, 0.5)]
    for n, op in enumerate(("embedding", "gelu")):
        rows("INSERT INTO llm_tensor_rt (id, run, shape, norm) VALUES (%s, 1, '{2,3}', %s)", n, n + 0.5)
        rows(
            "INSERT INTO llm_tape (id, run, model, step, position, name, inputs, output)"
            " VALUES (%s, 1, 'microgpt', 7, %s, %s, '{}', %s)",
            n,
            n,
            op,
            n,
        )
    ((activations,),) = rows("SELECT activations FROM llm_step")
    assert [(entry["op"], entry["shape"], entry["norm"]) for entry in activations] == [
        ("embedding", [2, 3], 0.5),
        ("gelu", [2, 3], 1.5),
    ]


def test_autograd_mode_is_always_one_row(rows):
    assert rows("SELECT flag FROM llm_autograd_mode") == [(False,)]
    for statement, flag in (
        ("INSERT INTO llm_autograd_mode VALUES (true)", True),
        ("UPDATE llm_autograd_mode SET flag = false", False),
        ("UPDATE llm_autograd_mode SET flag = NOT flag", True),
        ("DELETE FROM llm_autograd_mode", False),
    ):
        rows(statement)
        assert rows("SELECT flag, pg_llm_recording() FROM llm_autograd_mode") == [(flag, flag)], statement
    with pytest.raises(psycopg.errors.NotNullViolation):
        rows("UPDATE llm_autograd_mode SET flag = NULL")


def test_progress_is_empty_without_training(rows):
    assert rows("SELECT * FROM llm_train_progress") == []


def floats(values):
    return list(struct.unpack(f"<{len(values) // 4}f", values))


def matrix(n_rows, n_columns, first=0):
    lines = [[first + row * n_columns + column for column in range(n_columns)] for row in range(n_rows)]
    return lines, "[" + ",".join(str(line) for line in lines) + "]"


def test_reader_view_cuts_heads(rows):
    """d_model 4, 2 heads: columns of q, k and v side by side, rows of the output projection."""
    rows("INSERT INTO llm_model_config VALUES ('m', 'gpt2', 1, 2, 4, 8, 8)")
    attn, attn_text = matrix(4, 12)
    proj, _ = matrix(4, 4)
    bias = list(range(12))
    insert = "INSERT INTO llm_param (model, name, token_id, data) VALUES ('m', %s, %s, %s::text::tensor)"
    rows(insert, "h.0.attn.c_attn.weight", 0, attn_text)
    rows(insert, "h.0.attn.c_attn.bias", 0, str(bias))
    rows(insert, "h.0.attn.c_proj.weight", 0, "[" + ",".join(map(str, proj[:3])) + "]")
    rows(insert, "h.0.attn.c_proj.weight", 3, f"[{proj[3]}]")
    rows(insert, "ln_f.weight", 0, "[1, 2, 3, 4]")
    found = {
        (tensor, head, param_id.rsplit("/", 1)[1]): floats(values)
        for tensor, head, param_id, values in rows(
            "SELECT tensor_name, head, param_id, values FROM llm_param_er WHERE param_id LIKE 'm/%'"
        )
    }
    expected = {("ln_f.weight", None, "0"): [1, 2, 3, 4]}
    for head in (0, 1):
        columns = [block * 4 + head * 2 + i for block in range(3) for i in range(2)]
        expected["h.0.attn.c_attn.weight", head, "0"] = [line[column] for line in attn for column in columns]
        expected["h.0.attn.c_attn.bias", head, "0"] = [bias[column] for column in columns]
    expected["h.0.attn.c_proj.weight", 0, "0"] = proj[0] + proj[1]
    expected["h.0.attn.c_proj.weight", 1, "0"] = proj[2]
    expected["h.0.attn.c_proj.weight", 1, "3"] = proj[3]
    assert found == expected
    assert rows("SELECT count(*), count(layer) FROM llm_param_er WHERE param_id LIKE 'm/%'") == [(8, 7)]


def test_statements_are_cut_where_sql_ends_them():
    script = "-- a; b\nSELECT ';' AS \"x;y\", E'\\';';\n/* ; */ DO $a$ BEGIN; $b$;$b$ END $a$;SELECT $1"
    assert split_statements(script) == [
        "SELECT ';' AS \"x;y\", E'\\';'",
        "DO $a$ BEGIN; $b$;$b$ END $a$",
        "SELECT $1",
    ]


def test_declared_objects_are_read_from_their_text():
    script = """
    CREATE OR REPLACE FUNCTION public.f(a text, b int[] DEFAULT ARRAY[1, 2], c text = ',)' /* , */, OUT d int)
    LANGUAGE sql AS $$ SELECT 1; $$;
    COMMENT ON FUNCTION public.f(text, int[], text) IS 'it''s; this';
    CREATE TRIGGER t INSTEAD OF INSERT ON public.v FOR EACH ROW EXECUTE FUNCTION public.g();
    """
    function, trigger = parse_script(script)
    assert (function.kind, function.identity) == ("FUNCTION", "public.f(a text, b int[], c text, OUT d int)")
    assert function.comments == ("COMMENT ON FUNCTION public.f(text, int[], text) IS 'it''s; this'",)
    assert (trigger.kind, trigger.identity) == ("TRIGGER", "t ON public.v")
    for wrong in ("DROP TABLE llm_param;", "COMMENT ON FUNCTION public.h() IS 'nothing';"):
        with pytest.raises(ValueError, match="script"):
            parse_script(wrong)
