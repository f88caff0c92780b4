"""GGUF files: the same tensors under Hugging Face's names, configuration, what is refused and how."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")

import gguf

from llm_sql import gguf_config, importing, weights
from llm_sql.errors import LLMSQLError, UsageError
from llm_sql.gguf_files import GGUF
from llm_sql.gguf_header import read_header

from ..hunts import gguf as hunt
from ..reference.ggml_blocks import BLOCKS, SCALES, TAKEN_APART
from ..support import gguf_models
from ..support.gguf_models import ARCHITECTURES, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refused(path: Path, wanted: str, error: type[LLMSQLError] = LLMSQLError) -> str:
    with pytest.raises(error) as raised:
        GGUF(path)
    assert str(path) in raised.value.message
    assert wanted in raised.value.message, raised.value.message
    return raised.value.hint or ""


# ---- tensors ----


@pytest.mark.parametrize("elements", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tensors_are_hugging_faces_again(path: Path, arch: str, elements: str) -> None:
    wanted = gguf_models.tensors_of(arch)
    with closing(GGUF(write(path, arch, elements=elements)).tensors) as source:
        assert {name for name, _, _ in source.tensors} == wanted.keys()
        for name, dtype, shape in source.tensors:
            value = wanted[name]
            assert shape == value.shape
            assert dtype == (elements if value.ndim > 1 else "F32")
            found = source.read(name)
            assert found.dtype == np.float32
            assert np.array_equal(found, value), name
            for first, rows in ((0, 1), (1, 2), (len(value) - 3, 3)):
                assert np.array_equal(source.read(name, first, rows), value[first : first + rows]), name


@pytest.mark.parametrize("elements", BLOCKS)
def test_blocks_come_out_exactly(path: Path, elements: str) -> None:
    """Random blocks, each number of which is taken apart by itself."""
    numbers, size = BLOCKS[elements]
    rng = np.random.default_rng(len(elements) + size)
    blocks = rng.integers(0, 256, (6, 2, size), np.uint8)
    for at in SCALES.get(elements, (0,)):
        blocks[..., at : at + 2] = rng.standard_normal((6, 2, 1)).astype("<f2").view(np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    type_ = gguf.GGMLQuantizationType[elements]
    writer.add_tensor("x", blocks.reshape(6, -1), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    source = weights_of(header)
    expected = np.stack([[[*TAKEN_APART[elements](b.tobytes())] for b in row] for row in blocks])
    assert source.read("x").tobytes() == expected.reshape(6, 2 * numbers).astype(np.float32).tobytes()


def weights_of(header: Any) -> Any:
    """A source of the one tensor, under its own name."""
    from llm_sql.gguf_weights import GGUFSource, Held

    source = GGUFSource.__new__(GGUFSource)
    source.path = header.path
    source._held = {name: Held(entry, None, False) for name, entry in header.tensors.items()}
    source._whole = None
    source._gguf = gguf
    source._file = None
    return source


def test_written_as_safetensors(path: Path, tmp_path: Path) -> None:
    """llm-sql convert."""
    write(path, "llama", elements="Q8_0")
    target = tmp_path / "out.safetensors"
    weights.convert(path, target)
    with closing(weights.open_source(path)) as gguf_, weights.Source(target) as safe:
        assert [(n, s) for n, _, s in gguf_.tensors] == [(n, s) for n, _, s in safe.tensors]
        for name, _, _ in safe.tensors:
            assert np.array_equal(gguf_.read(name), safe.read(name))


# ---- configuration ----


def test_configurations(path: Path) -> None:
    config = {arch: GGUF(write(path, arch)).config for arch in ARCHITECTURES}
    assert config["llama"] == {
        "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "max_position_embeddings": 64,
        "vocab_size": 40, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0,
        "rope_scaling": None, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    assert config["qwen2"]["model_type"] == "qwen2"
    assert "attention_bias" not in config["qwen2"]
    assert (config["qwen3"]["head_dim"], config["qwen3"]["attention_bias"]) == (16, False)
    neox = config["gptneox"]
    assert (neox["model_type"], neox["rotary_pct"], neox["tie_word_embeddings"]) == ("gpt_neox", 0.25, False)
    assert config["gpt2"]["n_inner"] == 64


def test_windows_and_untied_heads(path: Path) -> None:
    tensors = gguf_models.converted("llama", gguf_models.tensors_of("llama"))
    tensors["output.weight"] = tensors["token_embd.weight"] * 2
    config = GGUF(write(path, tensors=tensors, metadata={"attention.sliding_window": 16})).config
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 16)
    assert config["tie_word_embeddings"] is False
    config = GGUF(write(path, "qwen2", metadata={"attention.sliding_window": 16})).config
    assert (config["sliding_window"], config["use_sliding_window"]) == (16, True)


@pytest.mark.parametrize(
    ("low", "high", "factor", "original"),
    [(1.0, 4.0, 8.0, 8192), (1.0, 4.0, 32.0, 8192), (2.0, 6.0, 8.0, 8192), (1.0, 4.0, 16.0, 4096)],
)
def test_llama3_scaling_from_its_factors(
    path: Path, low: float, high: float, factor: float, original: int
) -> None:
    """The four numbers, or others that mean the same."""
    given = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    factors = gguf_config.llama3_factors(given, 500000.0, 128).astype(np.float32)
    # A head is 128 wide here.
    tensors = {"rope_freqs.weight": factors}
    found = gguf_config.factors_of_llama3(read_header(write(path, tensors=tensors)), 500000.0, 128)
    assert found is not None
    scale = 8192 / original
    assert found == given | {
        "low_freq_factor": low * scale,
        "high_freq_factor": high * scale,
        "original_max_position_embeddings": 8192,
    }


def test_factors_of_another_kind_are_refused(path: Path) -> None:
    tensors = gguf_models.converted("llama", gguf_models.tensors_of("llama"))
    GGUF(write(path, tensors=tensors | {"rope_freqs.weight": np.ones(4, np.float32)}))
    for factors in ([1, 2, 1, 8], [8, 8, 8, 1], [np.nan] * 4, [np.inf] * 4, [0.5] * 4):
        write(path, tensors=tensors | {"rope_freqs.weight": np.array(factors, np.float32)})
        refused(path, "rope_freqs.weight with other factors")
    refused(write(path, tensors=tensors | {"rope_freqs.weight": np.ones(5, np.float32)}), "shape [5]")


def test_scaling_by_name(path: Path) -> None:
    scaled = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    config = GGUF(write(path, metadata=scaled)).config
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    scaled = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    scaled |= {"rope.scaling.original_context_length": 32}  # type: ignore[dict-item]
    config = GGUF(write(path, metadata=scaled)).config
    assert config["rope_scaling"]["original_max_position_embeddings"] == 32


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({"expert_count": 8}, "llama.expert_count = 8, which is not supported"),
        ({"attention.causal": False}, "llama.attention.causal = False"),
        ({"attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv = 8.0"),
        ({"final_logit_softcapping": 30.0}, "llama.final_logit_softcapping = 30.0, which is not supported"),
        ({"attention.head_count_kv": [1, 2]}, "llama.attention.head_count_kv = 2 values"),
        ({"attention.value_length": 4}, "llama.attention.value_length = 4"),
        ({"rope.dimension_count": 4}, "llama.rope.dimension_count = 4"),
        ({"block_count": None}, "lacks the metadata key llama.block_count"),
        ({"block_count": "two"}, "llama.block_count is 'two', not a whole number"),
        ({"block_count": 2.0}, "llama.block_count is 2.0, not a whole number"),
        ({"block_count": True}, "llama.block_count is True, not a whole number"),
        ({"block_count": 0}, "llama.block_count is 0"),
        ({"block_count": 1 << 31}, "llama.block_count is 2147483648"),
        ({"block_count": 1000}, "llama.block_count is 1000, but there are 20 tensors"),
        ({"block_count": 3}, "lacks the tensor blk.2."),
        ({"block_count": 1}, 'tensor "blk.1.'),
        ({"attention.layer_norm_rms_epsilon": float("nan")}, "epsilon is nan"),
        ({"attention.layer_norm_rms_epsilon": "small"}, "epsilon is 'small', not a number"),
        ({"rope.freq_base": float("inf")}, "llama.rope.freq_base is inf"),
        ({"rope.freq_base": -1.0}, "llama.rope.freq_base is -1.0"),
        ({"context_length": None}, "lacks the metadata key llama.context_length"),
        ({"vocab_size": 0}, "llama.vocab_size is 0"),
        ({"attention.head_count": 5}, "llama.attention.head_count = 5"),
        ({"vocab_size": 41}, "llama.vocab_size = 41"),
        ({"feed_forward_length": 65}, "has the shape [64, 32], its metadata says [65, 32]"),
    ],
)
def test_metadata_that_is_refused(path: Path, metadata: dict[str, Any], wanted: str) -> None:
    refused(write(path, metadata=metadata), wanted)


@pytest.mark.parametrize("arch", ["gemma3", "opt", "bert", "mamba", "llama4"])
def test_other_architectures(path: Path, arch: str) -> None:
    hint = refused(write(path, arch, tensors={}), f"general.architecture = '{arch}'")
    assert "Supported are llama (Llama, SmolLM2, Mistral)" in hint


def test_what_is_no_model_of_its_own(path: Path) -> None:
    refused(write(path, more={"general.type": "adapter"}), "general.type = 'adapter', which is not supported")
    assert "llama-gguf-split --merge" in refused(write(path, more={"split.count": 3}), "split.count = 3")


def test_elements_that_are_not_supported(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    blocks = np.zeros((4, 18), np.uint8)
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.IQ4_NL)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(path, 'tensor "token_embd.weight" has elements of type IQ4_NL; supported are F32, F16, BF16')


# ---- damaged files ----


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def info(name: bytes = b"x", dims: tuple[int, ...] = (4,), type_: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_, offset)


def made(keys: list[bytes], infos: list[bytes], data: int = 64, version: int = 3, **counts: int) -> bytes:
    head = struct.pack(
        "<4sIQQ", b"GGUF", version, counts.get("n_tensors", len(infos)), counts.get("n_keys", len(keys))
    )
    head += b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(data)


def key(name: bytes = b"k", type_: int = 4, value: bytes = b"\0" * 4) -> bytes:
    return string(name) + struct.pack("<I", type_) + value


def alignment(n: int) -> bytes:
    return key(b"general.alignment", 4, struct.pack("<I", n))


DAMAGED = [
    (b"", "it is not a GGUF file"),
    (b"GG", "it is not a GGUF file"),
    (b"PK\3\4" + bytes(60), "it is not a GGUF file"),
    (b"GGUF", "the version would end beyond the file"),
    (made([], [], version=1), "it has version 1; versions 2 and 3"),
    (made([], [], version=4), "it has version 4"),
    (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian"),
    (made([], [], n_tensors=1 << 60), "says that it has 1152921504606846976 tensors, more than"),
    (made([], [], n_keys=(1 << 64) - 1), "metadata keys, more than its length allows"),
    (made([], [], n_tensors=1, data=40), 'tensor "" has 0 dimensions'),
    (made([key(), key()], []), 'the metadata key "k" occurs twice'),
    (made([key(type_=13)], []), '"k" has a value of the unknown type 13'),
    (made([key(type_=8, value=struct.pack("<Q", 1 << 62))], []), "bytes in the value of"),
    (made([key(type_=8, value=string(b"\xff\xfe"))], []), 'the value of "k" is not UTF-8'),
    (made([key(name=b"\xff")], []), "a metadata key is not UTF-8"),
    (made([key(type_=7, value=b"\2")], []), 'the value of "k" is neither true nor false'),
    (made([key(type_=9, value=struct.pack("<IQ", 4, 1 << 61))], []), "numbers in the value of"),
    (made([key(type_=9, value=struct.pack("<IQ", 8, 1 << 50))], []), "strings in the value of"),
    (made([key(type_=9, value=struct.pack("<IQ", 9, 1))], []), "an array of the unknown type 9"),
    (made([alignment(0)], [info()]), "general.alignment is 0, which is no power of two"),
    (made([alignment(24)], [info()]), "general.alignment is 24"),
    (made([key(b"general.alignment", 6)], [info()]), "general.alignment is 0.0"),
    (made([alignment(1 << 30)], [info()]), "would end beyond the file"),
    (made([], [info(), info(offset=32)]), 'tensor "x" occurs twice'),
    (made([], [info(), info(b"y", (9,))]), 'tensors "x" and "y" overlap'),
    (made([], [info(offset=1)]), 'tensor "x" begins at 1, no multiple of 32'),
    (made([], [info(offset=64)]), 'tensor "x" of shape [4] would end beyond the file'),
    (made([], [info(dims=(17,))]), 'tensor "x" of shape [17] would end beyond the file'),
    (made([], [info(offset=(1 << 64) - 32)]), "would end beyond the file"),
    (made([], [info(dims=(1 << 32, 1 << 32, 4, 1 << 63))]), "would end beyond the file"),
    (made([], [info(dims=(0,))]), 'tensor "x" has the shape [0]'),
    (made([], [info(dims=())]), 'tensor "x" has 0 dimensions'),
    (made([], [info(dims=(1, 1, 1, 1, 1))]), 'tensor "x" has 5 dimensions'),
    (made([], [info(type_=4)]), 'tensor "x" has elements of type number 4'),
    (made([], [info(type_=10, dims=(256,))]), 'tensor "x" has elements of type Q2_K'),
    (made([], [info(type_=8, dims=(33,))]), "which are no blocks of 32"),
    (made([], [info(name=b"\xff")]), "the name of a tensor is not UTF-8"),
    (made([], []), "lacks the metadata key general.architecture"),
]


@pytest.mark.parametrize(("contents", "wanted"), DAMAGED, ids=[wanted for _, wanted in DAMAGED])
def test_damaged_files(path: Path, contents: bytes, wanted: str) -> None:
    path.write_bytes(contents)
    refused(path, wanted)


def test_every_shortened_file_is_refused(path: Path) -> None:
    whole = write(path, "gpt2").read_bytes()
    end = len(whole) - (len(whole) - max(i for i, byte in enumerate(whole) if byte)) + 1
    for n in [*range(0, 2000, 7), *range(2000, end, 997), end - 1]:
        path.write_bytes(whole[:n])
        with pytest.raises(LLMSQLError):
            GGUF(path)


def test_a_file_that_shrinks_is_told(path: Path) -> None:
    with closing(GGUF(write(path)).tensors) as source:
        source.read(source.tensors[0][0])
        with path.open("r+b") as file:
            file.truncate(3000)
        with pytest.raises(LLMSQLError, match="has become shorter while it was read"):
            source.read(source.tensors[-1][0])


# ---- finding files ----


def test_which_file_is_meant(path: Path, tmp_path: Path) -> None:
    write(path, "gpt2")
    for source in (path, str(path), tmp_path):
        found = importing.read(source, tokenizer=False)
        assert found.path == path
        assert found.columns is not None
        assert found.columns["d_ff"] == 64
    other = tmp_path / "weights.bin"
    path.rename(other)
    assert importing.read(other, tokenizer=False).columns is not None
    for name in ("a.gguf", "b.GGUF"):
        (tmp_path / name).write_bytes(other.read_bytes())
    with pytest.raises(UsageError, match=r"has several GGUF files: a.gguf, b.GGUF"):
        importing.read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LLMSQLError, match="describes a model of type None"):
        importing.read(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        importing.read(tmp_path / "missing.gguf")


def test_without_the_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UsageError, match="gguf library, which is not installed") as error:
        importing.read(path)
    assert 'pip install "llm-sql[gguf]"' in str(error.value.hint)


def test_a_package_with_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "small_chat").mkdir(parents=True)
    (site / "small_chat-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(site))
    file = write(site / "small_chat" / "m.gguf", "gpt2")
    info = site / "small_chat-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: small-chat\nVersion: 1.0\n")
    (info / "RECORD").write_text("small_chat/m.gguf,,\nsmall_chat/../../x.gguf,,\nsmall_chat/gone.gguf,,\n")
    assert importing.read("package:small-chat", tokenizer=False).path == file
    link = site / "small_chat" / "gone.gguf"
    link.symlink_to(write(tmp_path / "outside.gguf", "gpt2"))
    assert importing.read("package:small-chat", tokenizer=False).path == file
    link.unlink()
    link.write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match="several models") as error:
        importing.read("package:small-chat")
    assert "m.gguf" in error.value.message
    assert "gone.gguf" in error.value.message


def test_changed_files_are_read_or_refused(tmp_path: Path) -> None:
    """A share of tests/hunts/gguf.py."""
    sounds = hunt.sound(tmp_path)
    outcomes = {hunt.attack(tmp_path, sounds, 7_000_000 + seed) for seed in range(200)}
    assert outcomes == {"read", "refused"}
