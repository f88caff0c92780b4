"""Models whose weights are stored as bf16: files, training, checkpoints, readers, to the bit as float32's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from psycopg import errors
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.kernels import WeightsFile, WeightsWriter

from ..extension.test_bf16 import BY_STORAGE, outcome
from ..support.checkpoints import file_of, save
from ..support.checkpoints import load as load_checkpoint
from ..support.hostile import functions
from ..support.shared_files import logits, private_logits
from ..support.small_models import Connection, add_rows, make_model, make_trainable, train, weights
from ..support.tensors import value
from ..support.training import refusing_write_backs, run_of
from .test_import import Arrays, ServerImport, folder, hf_tensors, load
from .test_redo_log import SETTINGS, loop, steps
from .test_write_cost import compare, cost

__all__ = ["folder", "load"]  # fixtures

Connect = Callable[..., Connection]
DTYPES = "SELECT array_agg(DISTINCT dtype(data) ORDER BY dtype(data)) FROM llm_param WHERE model = %s"
TO_BF16 = "UPDATE llm_param SET data = pg_llm_to_bf16(data) WHERE model = %s"
TO_FLOAT32 = "UPDATE llm_param SET data = pg_llm_to_float32(data) WHERE model = %s"


def dtypes(conn: Connection, model: str = "tiny") -> list[str]:
    return list(value(conn, DTYPES, (model,)))


def halves_of(a: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Cut off, not rounded: the file says what the numbers are."""
    return (np.ascontiguousarray(a, np.float32).view(np.uint32) >> 16).astype("<u2")


def write_bf16(path: Path, tensors: Arrays, but: tuple[str, ...] = ()) -> str:
    """A safetensors file of bf16, as llm-sql writes one, but for tensors that are float32."""
    ordered = dict(sorted(tensors.items()))
    form = [(name, a.shape, "F32" if name in but else "BF16") for name, a in ordered.items()]
    with path.open("wb", buffering=0) as file:
        writer = WeightsWriter(file.fileno(), "safetensors", form, {"format": "pt"})
        for name, a in ordered.items():
            writer.write(
                np.ascontiguousarray(a, np.float32).tobytes() if name in but else halves_of(a).tobytes()
            )
        writer.finish()
    path.chmod(0o644)
    return str(path)


def twins(conn: Connection, **sizes: Any) -> tuple[str, str]:
    """Two models with the same numbers, which bf16 has, stored as bf16 and as float32."""
    for model in ("half", "full"):
        make_trainable(conn, model, seed=7, **sizes)
        conn.execute(TO_BF16, (model,))
    conn.execute(TO_FLOAT32, ("full",))
    assert (dtypes(conn, "half"), dtypes(conn, "full")) == (["bf16"], ["float32"])
    return "half", "full"


# ---- files ----


def test_a_bf16_file_comes_back_byte_by_byte(
    conn: Connection, engine: Engine, folder: Path, load: ServerImport
) -> None:
    make_model(conn)
    tensors = hf_tensors()
    path = write_bf16(folder / "w", tensors)
    assert load(path) == sum(a.size for a in tensors.values())
    assert dtypes(conn) == ["bf16"]
    assert value(
        conn, "SELECT bool_and(pg_column_size(data) <= 2 * llm_elements(shape(data)) + 32) FROM llm_param"
    )
    size = value(conn, "SELECT pg_llm_export_safetensors(%s, 'tiny')", (str(folder / "server"),))
    assert size == Path(path).stat().st_size
    with Session(engine) as session:
        LanguageModel(session, "tiny").export_weights(folder / "client", format="safetensors")
        LanguageModel(session, "tiny").export_weights(folder / "client.npz")
    conn.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(folder / "server.npz"),))
    content = Path(path).read_bytes()
    assert (folder / "server").read_bytes() == content
    assert (folder / "client").read_bytes() == content
    for npz in ("server.npz", "client.npz"):
        with WeightsFile(folder / npz) as file, WeightsFile(path) as original:
            for name, dtype, _ in file.tensors():
                assert dtype == "F32", "NumPy has no bf16"
                assert file.read(name).tobytes() == original.read(name).tobytes()


def test_moved_about_it_is_bf16_still(conn: Connection, folder: Path, load: ServerImport) -> None:
    """nanoGPT's matrices are transposed; of one that is float32 all of its parameter is."""
    make_model(conn)
    tensors = hf_tensors()
    matrices = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    turned = {name: a.T if name.endswith(matrices) else a for name, a in tensors.items()}
    load(write_bf16(folder / "w", turned, but=("h.1.mlp.c_fc.weight", "wpe.weight")))
    found = dict(conn.execute("SELECT name, dtype(data) FROM llm_param WHERE model = 'tiny'").fetchall())
    full = {name for name, dtype in found.items() if dtype == "float32"}
    assert full == {"h.1.mlp.c_fc.weight", "wpe.weight"}
    for name, data in conn.execute(
        "SELECT name, data::bytea FROM llm_param WHERE model = 'tiny'", binary=True
    ):
        a = np.ascontiguousarray(tensors[name])
        expected = a if name in full else (halves_of(a).astype(np.uint32) << 16).view(np.float32)
        assert data == expected.tobytes(), name
    conn.execute("SELECT pg_llm_export_safetensors(%s, 'tiny')", (str(folder / "back"),))
    with WeightsFile(folder / "back") as file:
        assert {name for name, dtype, _ in file.tensors() if dtype == "F32"} == full


def test_a_parameter_of_both_is_exported_as_float32(conn: Connection, folder: Path) -> None:
    make_model(conn)
    conn.execute(TO_BF16, ("tiny",))
    conn.execute(
        """WITH whole AS (DELETE FROM llm_param WHERE model = 'tiny' AND name = 'wte.weight' RETURNING *)
        INSERT INTO llm_param (model, name, token_id, data)
        SELECT model, name, f, CASE f WHEN 0 THEN pg_llm_slice(data, 0, f, t)
            ELSE pg_llm_to_bf16(pg_llm_slice(data, 0, f, t)) END
        FROM whole, (VALUES (0, 5), (5, 13)) p (f, t)"""
    )
    expected = value(conn, "SELECT llm_weight('tiny', 'wte.weight')::bytea")
    conn.execute("SELECT pg_llm_export_safetensors(%s, 'tiny')", (str(folder / "w"),))
    with WeightsFile(folder / "w") as file:
        assert [name for name, dtype, _ in file.tensors() if dtype == "F32"] == ["wte.weight"]
        assert file.read("wte.weight").tobytes() == expected
    before = weights(conn)
    id_ = save(conn)
    conn.execute("DELETE FROM llm_param")
    load_checkpoint(conn, id_)
    assert {row[0] for row in weights(conn).values()} >= {
        row[0] for key, row in before.items() if key[0] != "wte.weight"
    }
    assert value(conn, "SELECT llm_weight('tiny', 'wte.weight')::bytea") == expected


# ---- training ----


def test_training_is_the_float32_twins(conn: Connection) -> None:
    half, full = twins(conn)
    for model in (half, full):
        train(conn, model, 3, **SETTINGS)
    assert dtypes(conn, half) == ["float32"], "the first write-back stores float32"
    assert weights(conn, half) == weights(conn, full)
    for model in (half, full):
        loop(conn, 4, "1", "2", model)
    assert weights(conn, half) == weights(conn, full)
    query = "SELECT array_agg((loss, grad_norm)::text ORDER BY step) FROM llm_train_log WHERE model = %s"
    assert value(conn, query, (half,)) == value(conn, query, (full,))


def test_readers_see_the_float32_twin(conn: Connection, connect: Connect) -> None:
    half, full = twins(conn)
    for setting in ("float32", "bf16", "int8"):
        one, other = connect(), connect()
        for session in (one, other):
            session.execute("SELECT set_config('pg_llm.weights', %s, false)", (setting,))
        assert logits(one, half) == logits(one, full) == private_logits(other, half), setting
        assert private_logits(other, full) == logits(one, full), setting


@pytest.mark.parametrize("change", ["", TO_FLOAT32, "VACUUM FULL llm_param"])
def test_steps_that_were_not_stored_are_computed_again(
    conn: Connection, connect: Connect, change: str
) -> None:
    """The table has bf16 until the first write-back: after a crash, or a rewind, a run goes on from there."""
    half, full = twins(conn)
    with refusing_write_backs(conn, "'disk_full'"), pytest.raises(errors.DiskFull):
        loop(conn, 9, "1", "9", half)
    run = run_of(conn, half)
    assert steps(conn, run) == (0, 9, "failed")
    assert dtypes(conn, half) == ["bf16"]
    if change:
        conn.execute(change, (half,) if "%s" in change else None)
    connect().execute("CALL llm_train_resume(%s)", (run,))
    assert steps(conn, run) == (9, 9, "done")
    train(conn, full, 9, **SETTINGS)
    assert weights(conn, half) == weights(conn, full)


def test_checkpoints_keep_the_type(conn: Connection) -> None:
    half, full = twins(conn)
    before = weights(conn, half)
    ids = {model: save(conn, model) for model in (half, full)}
    sizes = {model: file_of(conn, id_).stat().st_size for model, id_ in ids.items()}
    n = value(conn, "SELECT sum(llm_elements(shape(data))) FROM llm_param WHERE model = %s", (half,))
    assert abs(sizes[full] - sizes[half] - 2 * n) < 256
    train(conn, half, 3, **SETTINGS)
    run, trained = run_of(conn, half), weights(conn, half)
    # Its own weights did not begin with the seed alone: the checkpoint is what a replay begins with.
    conn.execute("UPDATE llm_model_config SET init_seed = NULL WHERE model = %s", (half,))
    replayed = conn.execute("SELECT step, same FROM llm_replay(%s)", (run,)).fetchall()
    assert replayed == [(1, True), (2, True), (3, True)]
    second = save(conn, half)
    load_checkpoint(conn, ids[half], half)
    assert dtypes(conn, half) == ["bf16"]
    assert weights(conn, half) == before
    load_checkpoint(conn, second, half)
    assert dtypes(conn, half) == ["float32"]
    assert weights(conn, half) == trained


def test_copies_keep_the_type(conn: Connection) -> None:
    half, full = twins(conn)
    conn.execute("SELECT llm_copy_model(%s, 'copied')", (half,))
    assert dtypes(conn, "copied") == ["bf16"]
    assert weights(conn, "copied") == weights(conn, full)
    add_rows(conn, "copied")
    train(conn, "copied", 3, **SETTINGS)
    assert dtypes(conn, half) == ["bf16"]


def test_what_is_written_is_told(fresh_conn: Connection) -> None:
    """llm_write_cost's bounds: a copy is as large as what is copied, a write-back as float32."""
    conn = fresh_conn
    conn.execute("ALTER TABLE llm_param SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)")
    make_trainable(conn, "g", d_model=160, n_positions=64, vocab=256)
    compare(conn, "'g', 'copying'", "SELECT llm_copy_model('g', 'a')")
    conn.execute(TO_BF16, ("g",))
    compare(conn, "'g', 'copying'", "SELECT llm_copy_model('g', 'b')")
    compare(conn, "'g'", "SELECT llm_train('g', 1, log_every => 0)")
    copies = "SELECT sum(pg_column_size(data)) FROM llm_param WHERE model = %s"
    assert value(conn, copies, ("b",)) < 0.52 * value(conn, copies, ("a",))
    imported = {
        t: cost(conn, f"'g', 'importing', dtype => '{t}'")["toast_bytes"] for t in ("bf16", "float32")
    }
    assert imported["bf16"] < 0.52 * imported["float32"]
    with pytest.raises(errors.InvalidParameterValue, match="dtype must be float32 or bf16, got F16"):
        cost(conn, "'g', dtype => 'F16'")


# ---- weights in fewer bits: matrices stay bf16 in memory, too ----


def fewer_bits(connect: Connect, *, private: bool, setting: str = "bf16") -> Connection:
    conn = connect()
    conn.execute("SELECT set_config('pg_llm.weights', %s, false)", (setting,))
    if private:
        conn.execute("SET pg_llm.shared_dir = ''")
    return conn


MATRICES = "SELECT sum(llm_elements(shape(data))) FROM llm_param WHERE model = %s AND ndims(data) = 2"


def test_a_shared_file_has_them_as_they_are_stored(conn: Connection, connect: Connect) -> None:
    """Until somebody computes in float32: then the file has float32, for all. Packing rounds nothing."""
    half, full = twins(conn)
    reader = fewer_bits(connect, private=False)
    expected = logits(reader, full)
    assert logits(reader, half) == expected
    size = "SELECT bytes FROM llm_shared_version WHERE model = %s AND precision = 'float32'"
    small, large = value(conn, size, (half,)), value(conn, size, (full,))
    assert 0 <= 2 * value(conn, MATRICES, (half,)) - (large - small) < 64 * 32
    plain = fewer_bits(connect, private=False, setting="float32")
    assert logits(plain, full) == expected
    assert logits(reader, half) == expected
    assert value(conn, size, (half,)) == small
    assert logits(plain, half) == expected
    assert value(conn, size, (half,)) == large
    for session in (reader, connect()):
        session.execute("SET pg_llm.weights = 'bf16'")
        assert logits(session, half) == expected
    # In one session, one setting after the other.
    for setting in ("float32", "int8", "bf16", "float32"):
        reader.execute("SELECT set_config('pg_llm.weights', %s, false)", (setting,))
        assert (logits(reader, half) == expected) == (setting != "int8")
    assert value(conn, size, (half,)) == large
    conn.execute("SELECT llm_release(shared => true)")


def test_a_session_of_its_own_does_not_widen_them(conn: Connection, connect: Connect) -> None:
    half, full = twins(conn)
    conn.execute(
        """WITH whole AS (DELETE FROM llm_param WHERE name = 'wte.weight' RETURNING *)
        INSERT INTO llm_param (model, name, token_id, data)
        SELECT model, name, f, CASE dtype(data) WHEN 'bf16' THEN pg_llm_to_bf16(pg_llm_slice(data, 0, f, t))
            ELSE pg_llm_slice(data, 0, f, t) END
        FROM whole, (VALUES (0, 5), (5, 13)) p (f, t)"""
    )
    held = {}
    for model in (half, full):
        reader = fewer_bits(connect, private=True)
        assert logits(reader, model) == logits(fewer_bits(connect, private=True), full)
        held[model] = value(reader, "SELECT llm_release()")
    n = value(conn, MATRICES, (half,))
    assert 2 * n <= held[full] - held[half] <= 2 * n + 65536


def test_every_function_of_a_matrix_that_is_not_widened(fresh_conn: Connection) -> None:
    conn = fresh_conn
    twins(conn)
    conn.execute("SET pg_llm.shared_dir = ''")
    conn.execute("SET pg_llm.weights = 'bf16'")
    problems, computed = [], 0
    for function in functions(conn):
        if "tensor" not in function.types or function.name.startswith(BY_STORAGE):
            continue
        arguments = function.sensible(Random(function.signature))
        if "training" in function.names:
            arguments[function.names.index("training")] = "false"
        for i in [i for i, t in enumerate(function.types) if t == "tensor"]:
            results = []
            for model in ("half", "full"):
                conn.execute("SELECT llm_release()")
                weight = f"llm_weight('{model}', 'h.0.attn.c_proj.weight')"
                # Every tensor argument, and this one alone.
                given = [
                    weight if t == "tensor" else a for a, t in zip(arguments, function.types, strict=True)
                ]
                alone = [weight if place == i else a for place, a in enumerate(arguments)]
                results.append([outcome(conn, function, given), outcome(conn, function, alone)])
            computed += any(isinstance(r, list) for r in results[0])
            if results[0] != results[1]:
                problems.append(f"{function.signature}: {[str(r)[:200] for r in results]}")
    assert not problems, "\n".join(problems)
    assert computed > 60


@pytest.mark.parametrize("private", [False, True])
def test_who_records_has_float32(conn: Connection, connect: Connect, private: bool) -> None:
    """A gradient through weights that a reader has as bf16; evaluation; a training that follows."""
    half, full = twins(conn)
    found = []
    for model in (half, full):
        reader = fewer_bits(connect, private=private)
        logits(reader, model)
        nll = value(reader, "SELECT nll FROM llm_evaluate(%s, 'train')", (model,))
        row = value(reader, "SELECT llm_weight(%s, 'wte.weight')::bytea", (model,))
        reader.execute("SET pg_llm.autograd = on")
        with reader.transaction():
            loss = value(reader, "SELECT llm_loss(%s, '{1,2,3}', '{2,3,4}')", (model,))
        reader.execute("SET pg_llm.autograd = off")
        train(reader, model, 3, **SETTINGS)
        found.append((nll, row, loss, weights(reader, model)))
    assert found[0] == found[1]
    conn.execute("SELECT llm_release(shared => true)")
