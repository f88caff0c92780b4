"""Options by name, with the database's types and defaults, for type checkers and help().

Those of Any... name the model, too.

Written by models/codegen.py from models/: run python -m llm_sql.migrations.freeze, do not edit.
"""
# fmt: off

from collections.abc import Sequence
from typing import Any, Literal, TypedDict


class Sampling(TypedDict, total=False):
    """Arguments of llm_generate."""

    max_tokens: int
    """largest number of tokens to generate"""
    temperature: float
    """divides the logits; 0: always the most likely token"""
    top_k: int
    """how many of the most likely tokens to choose from; 0: all"""
    top_p: float
    """choose from the most likely tokens that together have this probability; 1: from all"""
    seed: int | None
    """the same seed gives the same text"""
    stop: str | Sequence[str] | None
    """the text ends before any of these texts"""
    echo: bool
    """put the prompt before the text"""
    repetition_penalty: float
    """above 1, makes tokens of the prompt and the text less likely (Keskar et al. 2019)"""
    presence_penalty: float
    """subtracted from the logits of tokens that occur in the text"""
    frequency_penalty: float
    """subtracted from a token's logit for each time it occurs in the text"""


class AnySampling(TypedDict, total=False):
    """Arguments of llm_generate."""

    max_tokens: int
    """largest number of tokens to generate"""
    temperature: float
    """divides the logits; 0: always the most likely token"""
    top_k: int
    """how many of the most likely tokens to choose from; 0: all"""
    top_p: float
    """choose from the most likely tokens that together have this probability; 1: from all"""
    model: str | None
    """name of the model; default: the database's default model"""
    seed: int | None
    """the same seed gives the same text"""
    stop: str | Sequence[str] | None
    """the text ends before any of these texts"""
    echo: bool
    """put the prompt before the text"""
    repetition_penalty: float
    """above 1, makes tokens of the prompt and the text less likely (Keskar et al. 2019)"""
    presence_penalty: float
    """subtracted from the logits of tokens that occur in the text"""
    frequency_penalty: float
    """subtracted from a token's logit for each time it occurs in the text"""


class Chat(TypedDict, total=False):
    """Arguments of llm_chat."""

    max_tokens: int
    """largest number of tokens to generate"""
    temperature: float
    """divides the logits; 0: always the most likely token"""
    top_k: int
    """how many of the most likely tokens to choose from; 0: all"""
    top_p: float
    """choose from the most likely tokens that together have this probability; 1: from all"""
    seed: int | None
    """the same seed gives the same text"""
    stop: str | Sequence[str] | None
    """the text ends before any of these texts"""
    echo: bool
    """put the prompt before the text"""
    repetition_penalty: float
    """above 1, makes tokens of the prompt and the text less likely (Keskar et al. 2019)"""
    presence_penalty: float
    """subtracted from the logits of tokens that occur in the text"""
    frequency_penalty: float
    """subtracted from a token's logit for each time it occurs in the text"""
    overflow: Literal['slide', 'error']
    """what does not fit into the context: slide (the oldest turns are left out) or error"""


class BeamSearch(TypedDict, total=False):
    """Arguments of llm_beam_search."""

    beam_width: int
    max_tokens: int
    """largest number of tokens to generate"""
    length_penalty: float
    early_stopping: bool


class AnyBeamSearch(TypedDict, total=False):
    """Arguments of llm_beam_search."""

    beam_width: int
    max_tokens: int
    """largest number of tokens to generate"""
    model: str | None
    """name of the model; default: the database's default model"""
    length_penalty: float
    early_stopping: bool


class Training(TypedDict, total=False):
    """Arguments of llm_train."""

    dropout_p: float
    """probability of dropout at embeddings, attention weights and residuals"""
    beta1: float
    """AdamW's decay rate of the first moment"""
    beta2: float
    """AdamW's decay rate of the second moment"""
    eps: float
    """added to the denominator of AdamW's update"""
    wd: float
    """AdamW's decoupled weight decay"""
    lr_max: float
    """highest learning rate"""
    warmup: int | None
    """steps of linear warm-up to the highest rate; default: 2000, or a tenth of a run that is not longer"""
    grad_clip: float | None
    """clip gradients to this global norm"""
    grad_workers: int
    """threads for the write-back; 0: pg_llm.threads"""
    prune_workers: int
    """threads for clearing; 0: pg_llm.threads"""
    batch_size: int
    """rows per batch"""
    grad_accum: int
    """batches per step, whose gradients are added"""
    block_size: int | None
    """how many tokens of a row to use; default: all"""
    schedule: Literal['cosine', 'linear', 'constant']
    """learning rate after the warm-up: cosine, linear or constant"""
    min_lr: float
    """learning rate at the schedule's end"""
    decay: Literal['all', 'matrices']
    """parameters that weight decay applies to: all or matrices"""
    seed: int
    """seed of batches and dropout"""
    data_order: Literal['shuffled', 'by_id']
    """order of the rows: shuffled (a seeded permutation per epoch) or by_id"""
    start_step: int | None
    """the model's step at which the schedule begins; default: this call's"""
    total_steps: int | None
    """length of the schedule, in steps; default: this call's"""
    log_every: int
    """steps between NOTICEs; 0: none"""
    keep_grad: bool
    """store the last step's gradients in llm_param.grad"""
    optimizer: Literal['keep', 'drop']
    """keep AdamW's moments, or drop them from the last write-back, which then stores data only"""


class Finetuning(TypedDict, total=False):
    """Arguments of llm_finetune."""

    new_name: str | None
    block_size: int | None
    stride: int | None
    validation: float
    batch_size: int
    """rows per batch"""
    grad_accum: int
    """batches per step, whose gradients are added"""
    lr_max: float
    """highest learning rate"""
    warmup: int | None
    """steps of linear warm-up to the highest rate; default: 2000, or a tenth of a run that is not longer"""
    schedule: Literal['cosine', 'linear', 'constant']
    """learning rate after the warm-up: cosine, linear or constant"""
    min_lr: float
    """learning rate at the schedule's end"""
    dropout_p: float
    """probability of dropout at embeddings, attention weights and residuals"""
    wd: float
    """AdamW's decoupled weight decay"""
    grad_clip: float
    """clip gradients to this global norm"""
    decay: Literal['all', 'matrices']
    """parameters that weight decay applies to: all or matrices"""
    seed: int
    """seed of batches and dropout"""
    log_every: int
    """steps between NOTICEs; 0: none"""
    beta1: float
    """AdamW's decay rate of the first moment"""
    beta2: float
    """AdamW's decay rate of the second moment"""
    eps: float
    """added to the denominator of AdamW's update"""
    grad_workers: int
    """threads for the write-back; 0: pg_llm.threads"""
    prune_workers: int
    """threads for clearing; 0: pg_llm.threads"""
    data_order: Literal['shuffled', 'by_id']
    """order of the rows: shuffled (a seeded permutation per epoch) or by_id"""
    start_step: int | None
    """the model's step at which the schedule begins; default: this call's"""
    total_steps: int | None
    """length of the schedule, in steps; default: this call's"""
    keep_grad: bool
    """store the last step's gradients in llm_param.grad"""
    optimizer: Literal['keep', 'drop']
    """keep AdamW's moments, or drop them from the last write-back, which then stores data only"""

DEFAULTS: dict[str, dict[str, tuple[str, Any]]] = {
    'Sampling': {
        'max_tokens': ('integer', 64),
        'temperature': ('double precision', 1.0),
        'top_k': ('integer', 50),
        'top_p': ('double precision', 0.95),
        'seed': ('bigint', None),
        'stop': ('text[]', None),
        'echo': ('boolean', False),
        'repetition_penalty': ('double precision', 1.0),
        'presence_penalty': ('double precision', 0.0),
        'frequency_penalty': ('double precision', 0.0),
    },
    'AnySampling': {
        'max_tokens': ('integer', 64),
        'temperature': ('double precision', 1.0),
        'top_k': ('integer', 50),
        'top_p': ('double precision', 0.95),
        'model': ('text', None),
        'seed': ('bigint', None),
        'stop': ('text[]', None),
        'echo': ('boolean', False),
        'repetition_penalty': ('double precision', 1.0),
        'presence_penalty': ('double precision', 0.0),
        'frequency_penalty': ('double precision', 0.0),
    },
    'Chat': {
        'max_tokens': ('integer', 256),
        'temperature': ('double precision', 0.7),
        'top_k': ('integer', 50),
        'top_p': ('double precision', 0.95),
        'seed': ('bigint', None),
        'stop': ('text[]', None),
        'echo': ('boolean', False),
        'repetition_penalty': ('double precision', 1.0),
        'presence_penalty': ('double precision', 0.0),
        'frequency_penalty': ('double precision', 0.0),
        'overflow': ('text', 'slide'),
    },
    'BeamSearch': {
        'beam_width': ('integer', 3),
        'max_tokens': ('integer', 64),
        'length_penalty': ('double precision', 1.0),
        'early_stopping': ('boolean', False),
    },
    'AnyBeamSearch': {
        'beam_width': ('integer', 3),
        'max_tokens': ('integer', 64),
        'model': ('text', None),
        'length_penalty': ('double precision', 1.0),
        'early_stopping': ('boolean', False),
    },
    'Training': {
        'dropout_p': ('double precision', 0.1),
        'beta1': ('double precision', 0.9),
        'beta2': ('double precision', 0.999),
        'eps': ('double precision', 1e-08),
        'wd': ('double precision', 0.01),
        'lr_max': ('double precision', 0.00025),
        'warmup': ('integer', None),
        'grad_clip': ('double precision', None),
        'grad_workers': ('integer', 1),
        'prune_workers': ('integer', 1),
        'batch_size': ('integer', 1),
        'grad_accum': ('integer', 1),
        'block_size': ('integer', None),
        'schedule': ('text', 'cosine'),
        'min_lr': ('double precision', 0.0),
        'decay': ('text', 'all'),
        'seed': ('bigint', 0),
        'data_order': ('text', 'shuffled'),
        'start_step': ('bigint', None),
        'total_steps': ('bigint', None),
        'log_every': ('integer', 1),
        'keep_grad': ('boolean', False),
        'optimizer': ('text', 'keep'),
    },
    'Finetuning': {
        'new_name': ('text', None),
        'block_size': ('integer', None),
        'stride': ('integer', None),
        'validation': ('double precision', 0.1),
        'batch_size': ('integer', 1),
        'grad_accum': ('integer', 1),
        'lr_max': ('double precision', 5e-05),
        'warmup': ('integer', None),
        'schedule': ('text', 'cosine'),
        'min_lr': ('double precision', 0.0),
        'dropout_p': ('double precision', 0.1),
        'wd': ('double precision', 0.01),
        'grad_clip': ('double precision', 1.0),
        'decay': ('text', 'all'),
        'seed': ('bigint', 0),
        'log_every': ('integer', 1),
        'beta1': ('double precision', 0.9),
        'beta2': ('double precision', 0.999),
        'eps': ('double precision', 1e-08),
        'grad_workers': ('integer', 1),
        'prune_workers': ('integer', 1),
        'data_order': ('text', 'shuffled'),
        'start_step': ('bigint', None),
        'total_steps': ('bigint', None),
        'keep_grad': ('boolean', False),
        'optimizer': ('text', 'keep'),
    },
}
"""SQL type and default of every option, by the class that has it."""
