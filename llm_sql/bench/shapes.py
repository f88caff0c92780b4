"""What is measured: models to train, matrix products, GPT-3's layers."""

from __future__ import annotations

from dataclasses import dataclass

DROPOUT = 0.1
GRAD_CLIP = 1.0


@dataclass(frozen=True)
class Shape:
    """A model's sizes, a batch's, and how many steps one measurement takes."""

    name: str
    arch: str
    n_layer: int
    n_head: int
    d_model: int
    n_positions: int
    vocab: int
    batch_size: int
    tokens: int
    steps: int

    @property
    def n_parameters(self) -> int:
        """GPT-2's count; microgpt has neither biases nor gains, and a head of its own."""
        d, embeddings = self.d_model, (self.vocab + self.n_positions) * self.d_model
        if self.arch == "microgpt":
            return embeddings + self.vocab * d + self.n_layer * 12 * d * d
        return embeddings + self.n_layer * (12 * d * d + 13 * d) + 2 * d


def gpt2_small(batch_size: int, tokens: int, steps: int = 4) -> Shape:
    name = f"GPT-2 124M, B={batch_size} T={tokens}"
    return Shape(name, "gpt2", 12, 12, 768, 1024, 50257, batch_size, tokens, steps)


MICROGPT = Shape("microgpt, B=1 T=8", "microgpt", 1, 4, 16, 16, 27, 1, 8, 400)
SMALL = Shape("4 layers, d 128, B=12 T=64", "gpt2", 4, 4, 128, 64, 65, 12, 64, 40)
GPT2_SHORT = gpt2_small(4, 64)
GPT2_LONG = gpt2_small(1, 1024)
GPT2_LARGE_BATCH = gpt2_small(4, 1024)

# Deep and narrow: its activations take several times what its weights do.
DEEP = Shape("96 layers, d 128, B=8 T=256", "gpt2", 96, 4, 128, 256, 512, 8, 256, 2)
BANDED = Shape("GPT-3 125M, banded, B=1 T=2048", "gpt3", 12, 12, 768, 2048, 50257, 1, 2048, 1)

# The graph of GPT-2 124M with next to no arithmetic: what is left is the time outside kernels.
GPT2_HOLLOW = Shape("GPT-2's graph at d 12, T=1", "gpt2", 12, 12, 12, 1024, 16, 1, 1, 40)


@dataclass(frozen=True)
class Product:
    """C (m,n) = op(A) op(B) over k. form: NN, NT (B is (n,k)) or TN (A is (k,m))."""

    name: str
    m: int
    n: int
    k: int
    form: str

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k


def products_of_linear(name: str, rows: int, inputs: int, outputs: int) -> list[Product]:
    """A linear layer's three products: the output, the gradient of its input, that of its weight."""
    return [
        Product(name, rows, outputs, inputs, "NN"),
        Product(f"{name} dx", rows, inputs, outputs, "NT"),
        Product(f"{name} dw", inputs, outputs, rows, "TN"),
    ]


def products_of_head(rows: int, d_model: int = 768, vocab: int = 50257) -> list[Product]:
    """The tied head's: logits = x wte^T, dx = dlogits wte, dwte = dlogits^T x."""
    return [
        Product("head", rows, vocab, d_model, "NT"),
        Product("head dx", rows, d_model, vocab, "NN"),
        Product("head dw", vocab, d_model, rows, "TN"),
    ]


def gpt2_products(rows: tuple[int, ...], head_rows: tuple[int, ...]) -> list[Product]:
    """Those of GPT-2's layers at d_model 768 for batches of so many tokens."""
    layers = {"qkv": (768, 2304), "projection": (768, 768), "mlp in": (768, 3072), "mlp out": (3072, 768)}
    found = [p for m in rows for name, (i, o) in layers.items() for p in products_of_linear(name, m, i, o)]
    return found + [p for m in head_rows for p in products_of_head(m)]


@dataclass(frozen=True)
class Layer:
    """One transformer layer of a GPT-3 model and how many tokens go through it."""

    name: str
    d_model: int
    n_head: int
    tokens: int = 256

    @property
    def n_parameters(self) -> int:
        return 12 * self.d_model**2 + 13 * self.d_model


# Brown et al. 2020, table 2.1, with the widths and heads of llm_model_config's seed rows.
GPT3_LAYERS = (
    Layer("gpt3-125m", 768, 12),
    Layer("gpt3-350m", 1024, 16),
    Layer("gpt3-760m", 1536, 16),
    Layer("gpt3-1.3b", 2048, 16),
    Layer("gpt3-2.7b", 2560, 32),
    Layer("gpt3-6.7b", 4096, 32),
    Layer("gpt3-13b", 5120, 40),
    Layer("gpt3-175b", 12288, 96),
)
