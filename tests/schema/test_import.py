"""Weights in and out of the database: names, layouts, shapes, privileges, and parity with transformers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.errors import LLMSQLError
from llm_sql.kernels import WeightsFile, WeightsWriter

from ..support.small_models import make_model, make_trainable, train, weights
from ..support.tensors import value

Connection = psycopg.Connection[Any]
Arrays = dict[str, np.ndarray[Any, Any]]
HOSTILE = sorted((Path(__file__).parents[1] / "kernels" / "hostile").glob("bad_*"))
L, H, D, P, V = 2, 2, 16, 8, 13


@pytest.fixture
def folder(connect: Any) -> Iterator[Path]:
    """A directory that server and test both write to."""
    path = Path(tempfile.mkdtemp(prefix="llm-sql-files-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def hf_tensors(seed: int = 5) -> Arrays:
    """Random weights under Hugging Face's names."""
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=shape).astype(np.float32)

    tensors = {"wte.weight": random(V, D), "wpe.weight": random(P, D)}
    for n in range(L):
        for name, shape in {
            "ln_1.weight": (D,),
            "ln_1.bias": (D,),
            "attn.c_attn.weight": (D, 3 * D),
            "attn.c_attn.bias": (3 * D,),
            "attn.c_proj.weight": (D, D),
            "attn.c_proj.bias": (D,),
            "ln_2.weight": (D,),
            "ln_2.bias": (D,),
            "mlp.c_fc.weight": (D, 4 * D),
            "mlp.c_fc.bias": (4 * D,),
            "mlp.c_proj.weight": (4 * D, D),
            "mlp.c_proj.bias": (D,),
        }.items():
            tensors[f"h.{n}.{name}"] = random(*shape)
    return tensors | {"ln_f.weight": random(D), "ln_f.bias": random(D)}


def write(path: Path, tensors: Arrays, format_: str = "safetensors") -> str:
    with path.open("wb", buffering=0) as file:
        writer = WeightsWriter(file.fileno(), format_, [(name, a.shape) for name, a in tensors.items()])
        for a in tensors.values():
            writer.write(np.ascontiguousarray(a, np.float32))
        writer.finish()
    path.chmod(0o644)
    return str(path)


def stored(conn: Connection, model: str = "tiny") -> Arrays:
    """A model's parameters, parts joined."""
    rows = conn.execute(
        "SELECT name, data FROM llm_param WHERE model = %s ORDER BY name, token_id", (model,), binary=True
    ).fetchall()
    result: dict[str, list[Any]] = {}
    for name, data in rows:
        result.setdefault(name, []).append(data)
    return {name: np.concatenate(parts) for name, parts in result.items()}


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].tobytes() == expected[name].tobytes(), name


ServerImport = Callable[..., int]


@pytest.fixture(params=["server", "client"])
def load(request: pytest.FixtureRequest, conn: Connection, engine: Engine) -> ServerImport:
    """Imports a file by both routes."""

    def on_server(path: str, model: str = "tiny", version: float | None = None) -> int:
        with open(path, "rb") as file:  # noqa: PTH123
            name = "npz" if file.read(2) in (b"PK", b"\x1f\x8b") else "safetensors"
        return int(value(conn, f"SELECT pg_llm_import_{name}(%s, %s, %s)", (path, model, version)))

    def on_client(path: str, model: str = "tiny", version: float | None = None) -> int:
        with Session(engine) as session, session.begin():
            return LanguageModel(session, model).import_weights(path, megatron_version=version)

    return on_server if request.param == "server" else on_client


# ---- names and layouts ----


@pytest.mark.parametrize("format_", ["safetensors", "npz", "gzip"])
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_hugging_faces_names(
    conn: Connection, folder: Path, load: ServerImport, format_: str, prefix: str
) -> None:
    make_model(conn)
    tensors = hf_tensors()
    masks = {"h.0.attn.bias": np.ones((1, 1, P, P)), "h.0.attn.masked_bias": np.array(-1e4)}
    path = write(folder / "w", {prefix + name: a for name, a in (tensors | masks).items()}, format_)
    assert load(path) == sum(a.size for a in tensors.values())
    assert_equal(stored(conn), tensors)


def test_importing_replaces_everything(conn: Connection, folder: Path, load: ServerImport) -> None:
    make_trainable(conn)
    train(conn, n_steps=3)
    path = write(folder / "w", hf_tensors())
    load(path)
    assert value(conn, "SELECT count(*) FROM llm_param WHERE step > 0 OR m IS NOT NULL OR v IS NOT NULL") == 0
    assert value(conn, "SELECT count(*) FROM llm_train_log WHERE NOT superseded") == 0
    train(conn, n_steps=2)
    assert value(conn, "SELECT max(step) FROM llm_train_log WHERE NOT superseded") == 2


def test_bare_embedding_names(conn: Connection, folder: Path, load: ServerImport) -> None:
    """As the public predecessor's converter writes them."""
    make_model(conn)
    tensors = hf_tensors()
    renamed = {"wte": tensors["wte.weight"], "wpe": tensors["wpe.weight"]} | {
        name: a for name, a in tensors.items() if name not in ("wte.weight", "wpe.weight")
    }
    load(write(folder / "w", renamed, "gzip"))
    assert_equal(stored(conn), tensors)


@pytest.mark.parametrize("equal", [True, False])
def test_an_explicit_head(conn: Connection, folder: Path, load: ServerImport, equal: bool) -> None:
    make_model(conn)
    tensors = hf_tensors()
    head = tensors["wte.weight"] + (0 if equal else 1)
    path = write(folder / "w", tensors | {"lm_head.weight": head})
    load(path)
    assert value(conn, "SELECT tied FROM llm_model_config WHERE model = 'tiny'") is equal
    assert_equal(stored(conn), tensors if equal else tensors | {"lm_head.weight": head})
    logits = value(conn, "SELECT llm_logits('{1,2,3}', 'tiny')")
    # and back: a file without a head ties them again
    load(write(folder / "v", tensors))
    assert value(conn, "SELECT tied FROM llm_model_config WHERE model = 'tiny'") is True
    assert np.array_equal(value(conn, "SELECT llm_logits('{1,2,3}', 'tiny')"), logits) is equal


def megatron(tensors: Arrays, version: float) -> Arrays:
    """The same weights as Megatron-LM keeps them, with a padded vocabulary."""
    base = "model.language_model."
    pad = np.full((3, D), 7, np.float32)
    result = {
        f"{base}embedding.word_embeddings.weight": np.concatenate([tensors["wte.weight"], pad]),
        f"{base}embedding.position_embeddings.weight": tensors["wpe.weight"],
        f"{base}encoder.final_layernorm.weight": tensors["ln_f.weight"],
        f"{base}encoder.final_layernorm.bias": tensors["ln_f.bias"],
    }
    names = {
        "ln_1": "input_layernorm",
        "attn.c_proj": "self_attention.dense",
        "ln_2": "post_attention_layernorm",
        "mlp.c_fc": "mlp.dense_h_to_4h",
        "mlp.c_proj": "mlp.dense_4h_to_h",
    }
    for n in range(L):
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                result[f"{base}encoder.layers.{n}.{theirs}.{kind}"] = tensors[f"h.{n}.{ours}.{kind}"].T
        for kind in ("weight", "bias"):
            # (3, heads, d_head, ...) to heads x 3 x d_head or heads x d_head x 3
            qkv = tensors[f"h.{n}.attn.c_attn.{kind}"].T.reshape(3, H, D // H, -1)
            order = (1, 0, 2, 3) if version >= 2 else (1, 2, 0, 3)
            fused = qkv.transpose(order).reshape(3 * D, -1)
            name = f"{base}encoder.layers.{n}.self_attention.query_key_value.{kind}"
            result[name] = fused if kind == "weight" else fused[:, 0]
    return result


@pytest.mark.parametrize("version", [1.0, 2.0, 3.0])
def test_megatrons_names_and_orders(
    conn: Connection, folder: Path, load: ServerImport, version: float
) -> None:
    make_model(conn)
    tensors = hf_tensors()
    path = write(folder / "w", megatron(tensors, version))
    load(path, version=version)
    assert_equal(stored(conn), tensors)


def test_megatrons_order_must_be_told(conn: Connection, folder: Path) -> None:
    make_model(conn)
    path = write(folder / "w", megatron(hf_tensors(), 1.0))
    with pytest.raises(errors.InvalidParameterValue, match="depends on its version") as refused:
        conn.execute("SELECT pg_llm_import_safetensors(%s, 'tiny')", (path,))
    assert "2.0" in str(refused.value.diag.message_hint)


@pytest.mark.parametrize("as_stored", [True, False])
def test_split_projections(conn: Connection, folder: Path, load: ServerImport, as_stored: bool) -> None:
    make_model(conn)
    tensors = hf_tensors()
    split: Arrays = {}
    for name, a in tensors.items():
        name = name.replace("h.", "layers.", 1) if name.startswith("h.") else name
        layout = a if as_stored or a.ndim == 1 or not (".mlp." in name or ".attn." in name) else a.T
        if ".c_attn." in name:
            for part, piece in zip("qkv", np.split(a, 3, axis=-1), strict=True):
                split[name.replace("c_attn", f"{part}_proj")] = piece if as_stored else piece.T
        elif ".mlp.c_fc" in name or ".mlp.c_proj" in name:
            split[name.replace("mlp.c_fc", "mlp.fc1").replace("mlp.c_proj", "mlp.fc2")] = layout
        else:
            split[name.replace("attn.c_proj", "attn.out_proj")] = layout
    load(write(folder / "w", split))
    assert_equal(stored(conn), tensors)


def test_types_are_rounded_to_float32(conn: Connection, folder: Path) -> None:
    make_model(conn)
    tensors = hf_tensors()
    np.savez(folder / "w.npz", **{name: a.astype(np.float16) for name, a in tensors.items()})
    conn.execute("SELECT pg_llm_import_npz(%s, 'tiny')", (str(folder / "w.npz"),))
    assert_equal(stored(conn), {n: a.astype(np.float16).astype(np.float32) for n, a in tensors.items()})
    np.savez_compressed(folder / "v.npz", **{n: np.asfortranarray(a, np.float64) for n, a in tensors.items()})
    conn.execute("SELECT pg_llm_import_npz(%s, 'tiny')", (str(folder / "v.npz"),))
    assert_equal(stored(conn), tensors)


def test_large_tensors_are_stored_in_parts(conn: Connection, folder: Path, load: ServerImport) -> None:
    conn.execute(
        "INSERT INTO llm_model_config (model, arch, n_layer, n_head, d_model, n_positions, vocab)"
        " VALUES ('wide', 'gpt2', 1, 1, 64, 8, 140000)"
    )
    conn.execute("SELECT llm_init_model('wide', 3)")
    parts = (
        "SELECT array_agg((name, token_id)::text ORDER BY name, token_id) FROM llm_param WHERE model = 'wide'"
    )
    before, tensors = value(conn, parts), stored(conn, "wide")
    path = write(folder / "w", tensors, "npz")
    conn.execute("SELECT llm_init_model('wide', 4)")
    load(path, "wide")
    assert value(conn, parts) == before
    assert len(before) > len(tensors)
    assert_equal(stored(conn, "wide"), tensors)


# ---- refusals ----


def test_what_does_not_fit_is_listed(conn: Connection, folder: Path, load: ServerImport) -> None:
    make_model(conn)
    before = weights(conn)
    tensors = hf_tensors()
    wrong = {
        "lacks.*ln_f.bias": {n: a for n, a in tensors.items() if n != "ln_f.bias"},
        "does not have: rubbish": tensors | {"rubbish": np.zeros(3)},
        r"\[14, 16\], expected \[13, 16\]": tensors | {"wte.weight": np.zeros((14, D))},
        r"h.0.ln_1.bias.*\[17\]": tensors | {"h.0.ln_1.bias": np.zeros(17)},
        "under two names": tensors | {"transformer.ln_f.bias": np.zeros(D)},
        "not finite": tensors | {"h.1.ln_1.bias": np.full(D, np.nan)},
    }
    for number, (message, content) in enumerate(wrong.items()):
        path = write(folder / str(number), content)
        with pytest.raises(Exception, match=message):
            load(path)
    assert weights(conn) == before


@pytest.mark.parametrize(
    "tensors",
    [None, "{}", "null", "1", '["wte.weight"]', '[{"dtype": "F32", "shape": [1]}]',
     '[{"name": "a", "dtype": "F32"}]', '[{"name": "a", "dtype": "F32", "shape": 1}]',
     '[{"name": "a", "dtype": null, "shape": []}]'],
)  # fmt: skip
def test_a_file_is_described_by_a_list_of_tensors(conn: Connection, tensors: str | None) -> None:
    make_model(conn)
    for call in (
        "llm_import_begin('tiny', %s, true)",
        "llm_import_check('tiny', %s)",
        "llm_import_plan('tiny', %s)",
    ):
        with pytest.raises(errors.InvalidParameterValue, match="must be a JSON array of"):
            conn.execute(f"SELECT {call}", (tensors,))


def test_a_part_is_stored_once(conn: Connection) -> None:
    make_model(conn)
    with pytest.raises(
        errors.UniqueViolation, match=r'"wpe\.weight" of model "tiny" already has the part from row 0'
    ):
        conn.execute("SELECT llm_import_part('tiny', 'wpe.weight', 0, '[[1]]')")


def test_more_elements_than_a_bigint_counts(conn: Connection) -> None:
    assert value(conn, "SELECT llm_elements('{2147483647,2147483647}')") == 2147483647**2
    assert value(conn, "SELECT llm_elements('{2147483647,0,2147483647}')") == 0
    with pytest.raises(errors.NumericValueOutOfRange, match="more elements than a bigint counts"):
        conn.execute("SELECT llm_elements(array_fill(2147483647, '{3}'))")


def test_models_and_files_that_are_not_there(conn: Connection, folder: Path) -> None:
    make_model(conn)
    path = write(folder / "w", hf_tensors())
    with pytest.raises(errors.UndefinedObject):
        conn.execute("SELECT pg_llm_import_safetensors(%s, 'nobody')", (path,))
    with pytest.raises(errors.UndefinedFile):
        conn.execute("SELECT pg_llm_import_safetensors(%s, 'tiny')", (path + "x",))
    with pytest.raises(errors.InvalidName):
        conn.execute("SELECT pg_llm_import_safetensors('w', 'tiny')")
    with pytest.raises(errors.WrongObjectType):
        conn.execute("SELECT pg_llm_import_safetensors('/dev/zero', 'tiny')")
    with pytest.raises(errors.InvalidParameterValue, match="has the format safetensors"):
        conn.execute("SELECT pg_llm_import_npz(%s, 'tiny')", (path,))


# What pg_llm says of a file: it is not what it should be, or another format than the function takes.
REFUSED = {errors.DataException.sqlstate, errors.InvalidParameterValue.sqlstate}


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_hostile_files_are_refused(conn: Connection, engine: Engine, folder: Path, path: Path) -> None:
    make_model(conn)
    before, backend = weights(conn), value(conn, "SELECT pg_backend_pid()")
    copy = folder / path.name
    shutil.copy(path, copy)
    copy.chmod(0o644)
    for name in ("npz", "safetensors"):
        with pytest.raises(errors.DatabaseError) as refused:
            conn.execute(f"SELECT pg_llm_import_{name}(%s, 'tiny')", (str(copy),))
        assert refused.value.sqlstate in REFUSED
        assert refused.value.diag.message_primary
    with Session(engine) as session, pytest.raises((LLMSQLError, DBAPIError)):
        LanguageModel(session, "tiny").import_weights(copy)
    assert value(conn, "SELECT pg_backend_pid()") == backend
    assert weights(conn) == before


def test_one_trainer_at_a_time(conn: Connection, connect: Any, folder: Path) -> None:
    make_model(conn)
    path = write(folder / "w", hf_tensors())
    other = connect(autocommit=False)
    other.execute("SELECT llm_lock_model('tiny')")
    with pytest.raises(errors.LockNotAvailable):
        conn.execute("SELECT pg_llm_import_safetensors(%s, 'tiny')", (path,))
    other.rollback()


# ---- export ----


@pytest.mark.parametrize("format_", ["safetensors", "npz", "gzip"])
def test_export_gives_back_what_was_imported(
    conn: Connection, engine: Engine, folder: Path, format_: str
) -> None:
    make_model(conn)
    tensors = hf_tensors()
    conn.execute("SELECT pg_llm_import_safetensors(%s, 'tiny')", (write(folder / "w", tensors),))
    call = {
        "safetensors": "safetensors(%s, 'tiny')",
        "npz": "npz(%s, 'tiny')",
        "gzip": "npz(%s, 'tiny', true)",
    }
    target = folder / "server"
    size = value(conn, f"SELECT pg_llm_export_{call[format_]}", (str(target),))
    assert size == target.stat().st_size
    with Session(engine) as session:
        count = LanguageModel(session, "tiny").export_weights(folder / "client", format=format_)
    assert count == sum(a.size for a in tensors.values())
    for path in (target, folder / "client"):
        with WeightsFile(path) as file:
            assert file.format == format_
            assert_equal({name: file.read(name) for name, _, _ in file.tensors()}, tensors)
    assert {p.name for p in folder.iterdir()} == {"w", "server", "client"}


def test_a_failed_export_leaves_the_old_file(conn: Connection, folder: Path) -> None:
    make_model(conn)
    target = folder / "w"
    target.write_text("old")
    with pytest.raises(errors.NoDataFound):
        conn.execute("SELECT pg_llm_export_npz(%s, 'gpt2-small')", (str(target),))
    with pytest.raises(errors.UndefinedFile):
        conn.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(folder / "no" / "w"),))
    assert [p.name for p in folder.iterdir()] == ["w"]
    assert target.read_text() == "old"


# ---- privileges ----


@pytest.fixture
def ordinary(conn: Connection, connect: Any) -> Iterator[Connection]:
    """A trainer who may not touch the server's files."""
    conn.execute("DROP ROLE IF EXISTS llm_test_importer")
    conn.execute("CREATE ROLE llm_test_importer LOGIN")
    conn.execute("GRANT llm_trainer TO llm_test_importer")
    yield connect(user="llm_test_importer")
    conn.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'llm_test_importer'"
    )
    conn.execute("DROP ROLE llm_test_importer")


def test_an_ordinary_role_reads_and_writes_no_server_files(
    conn: Connection, ordinary: Connection, folder: Path
) -> None:
    make_model(conn)
    path = write(folder / "w", hf_tensors())
    for statement in (
        f"pg_llm_import_safetensors('{path}', 'tiny')",
        f"pg_llm_import_npz('{path}', 'tiny')",
        f"pg_llm_export_npz('{folder}/x', 'tiny')",
        f"pg_llm_export_safetensors('{folder}/x', 'tiny')",
        f"pg_llm_file_tensors('{path}', 1000000)",
        f"pg_llm_file_tensor('{path}', 'wte.weight')",
        f"pg_llm_file_sha256('{path}')",
        f"pg_llm_file_metadata('{path}', 'format')",
        f"pg_llm_file_bytes('{path}', 'wte.weight')",
        f"pg_llm_file_write('{folder}/x', 'npz', 'SELECT 1', 'SELECT 1', '', '{{}}')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            ordinary.execute(f"SELECT {statement}")
    assert [p.name for p in folder.iterdir()] == ["w"]
    with pytest.raises(errors.InsufficientPrivilege):
        ordinary.execute("SET pg_llm.checkpoint_dir = '/tmp'")
    for name in (path, "../../w", "w", "1-1/w", "base/1/1259"):
        with pytest.raises(errors.InvalidParameterValue):
            ordinary.execute("SELECT pg_llm_file_sha256(%s, true)", (name,))


def test_an_ordinary_role_imports_through_its_connection(
    conn: Connection, ordinary: Connection, server: Any, dbname: str, folder: Path
) -> None:
    from sqlalchemy import create_engine

    make_model(conn)
    tensors = hf_tensors()
    path = write(folder / "w", tensors)
    engine = create_engine(server.sqlalchemy_url(dbname, user="llm_test_importer"))
    with Session(engine) as session, session.begin():
        LanguageModel(session, "tiny").import_weights(path)
    engine.dispose()
    assert_equal(stored(conn), tensors)
    assert value(ordinary, "SELECT shape(llm_logits('{1,2}', 'tiny'))") == [2, V]


def test_roles_of_postgresql_suffice(conn: Connection, ordinary: Connection, folder: Path) -> None:
    make_model(conn)
    path = write(folder / "w", hf_tensors())
    conn.execute("GRANT pg_read_server_files, pg_write_server_files TO llm_test_importer")
    ordinary.execute("SELECT pg_llm_import_safetensors(%s, 'tiny')", (path,))
    ordinary.execute("SELECT pg_llm_export_npz(%s, 'tiny')", (str(folder / "x"),))
    assert_equal(stored(conn), hf_tensors())


# ---- parity ----


@pytest.mark.parametrize(
    ("n_layer", "n_head", "d", "positions", "vocab"), [(2, 2, 32, 64, 101), (3, 4, 64, 96, 999)]
)
def test_transformers(
    conn: Connection,
    engine: Engine,
    folder: Path,
    n_layer: int,
    n_head: int,
    d: int,
    positions: int,
    vocab: int,
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(n_layer)
    config = transformers.GPT2Config(
        n_layer=n_layer, n_head=n_head, n_embd=d, n_positions=positions, vocab_size=vocab,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.save_pretrained(folder / "hub")
    conn.execute(
        "INSERT INTO llm_model_config (model, n_layer, n_head, d_model, n_positions, vocab)"
        " VALUES ('hf', %s, %s, %s, %s, %s)", (n_layer, n_head, d, positions, vocab),
    )  # fmt: skip
    with Session(engine) as session, session.begin():
        LanguageModel(session, "hf").import_weights(folder / "hub")
    tokens = torch.randint(0, vocab, (1, 40))
    with torch.no_grad():
        output = theirs(tokens, labels=tokens)
    expected = output.logits[0].numpy()
    ids = tokens[0].tolist()
    logits = value(conn, "SELECT llm_logits(%s, 'hf')", (ids,))
    assert np.linalg.norm(logits - expected) <= 2e-5 * np.linalg.norm(expected)
    loss = value(conn, "SELECT llm_loss('hf', %s, %s)", (ids[:-1], ids[1:]))
    assert loss == pytest.approx(float(output.loss), rel=1e-6)
    with Session(engine) as session:
        LanguageModel(session, "hf").export_weights(folder / "hub" / "model.safetensors")
    back = transformers.GPT2LMHeadModel.from_pretrained(folder / "hub")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
