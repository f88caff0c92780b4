# Written by models/codegen.py from models/: run python -m llm_sql.migrations.freeze, do not edit.
# fmt: off
# ruff: noqa

from collections.abc import Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Function
from sqlalchemy.sql.selectable import TableValuedAlias

from .sql_function import Call, Expression, SqlFunction

Bool: TypeAlias = bool | Expression | None
Bytes: TypeAlias = bytes | Expression | None
Double: TypeAlias = float | Expression | None
Int: TypeAlias = int | Expression | None
Ints: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | NDArray[Any] | Expression | None
Json: TypeAlias = Any
Tensor: TypeAlias = NDArray[Any] | Expression | None
Text: TypeAlias = str | Expression | None
Texts: TypeAlias = Sequence[str] | Expression | None

# ---- models ----

def llm_create_model(
    model: Text,
    arch: Text = ...,
    n_layer: Int = ...,
    n_head: Int = ...,
    d_model: Int = ...,
    n_positions: Int = ...,
    vocab: Int = ...,
    seed: Int = ...,
    settings: Json = ...,
) -> Function[int]:
    """Registers a model and initialises its weights. Returns the number of weights. Sizes that are not given are
    those of the architecture's smallest model in llm_model_config, or of the smallest GPT-2; vocab is that of
    the model's tokenizer if it already has one. settings: what the architecture knows beyond sizes, as
    llm_arch.settings declares. 42710: the model exists; 42704: unknown architecture; 22023: inconsistent
    sizes, or a setting that is unknown or not allowed; 53100: the weights do not fit on the disk; 54000: more
    than 10,000 layers or 10^12 weights. VACUUM (TRUNCATE) llm_param frees the space of a failed or dropped
    model.
    """
create_model = llm_create_model

def llm_create_adapter(
    name: Text,
    base: Text,
    rank: Int = ...,
    alpha: Double = ...,
    targets: Texts = ...,
    seed: Int = ...,
) -> Function[int]:
    """Makes a LoRA adapter, a model whose rows of llm_param are two small matrices for each matrix of its base
    that it adds to: x w becomes x w + (alpha / rank) (x a) b. All else it reads from its base, whose weights
    it never changes. It begins with b = 0, and a as PEFT begins it, drawn from the seed; so it first computes
    what its base does. targets: the matrices, by our names (attn.c_attn), by their last part (c_attn; q or
    q_proj) or by Hugging Face's names; NULL: those of attention. Returns the number of weights. It is used,
    trained, saved, evaluated and dropped like any model, as long as its base has the weights that it was made
    for (55000 otherwise). 42710: the name is taken; 42704: unknown base; 22023: unknown targets, a rank that
    they do not have, alpha 0, a base that is an adapter; 0A000: an encoder; P0002: the base has no weights;
    40001: its weights were changed meanwhile.
    """
create_adapter = llm_create_adapter

def llm_recognise_base(base: Text) -> Function[int]:
    """Hashes the model's weights once for all of its adapters: to be called after a restore, or where a
    subscription brought it, which write the same numbers to other rows; until then each session hashes them.
    Returns the number of adapters that were made for these weights. Requires llm_trainer. 42704: unknown
    model; 40001: they were changed meanwhile.
    """
recognise_base = llm_recognise_base

def llm_init_model(model: Text, seed: Int = ...) -> Function[int]:
    """Gives the model new weights, initialised as its architecture defines (GPT-2: normal 0.02, residual
    projections scaled by 1/sqrt(2 n_layer), zero biases, unit gains), at step 0 and without optimizer state.
    Its log rows are marked as superseded. The same seed gives the same bits. Returns the number of weights.
    55P03: another session is changing the model; 53100: the weights do not fit on the disk.
    """
init_model = llm_init_model

def llm_drop_model(model: Text) -> Function[None]:
    """Removes the model: configuration, weights, tokenizer, its own data sets, runs, log and tape. Its
    checkpoints, files and rows, are kept. 2BP01: it is the base of adapters; 55P03: another session is
    changing the model. The space of its weights can be reused after a vacuum; VACUUM (TRUNCATE) llm_param
    returns it to the system.
    """
drop_model = llm_drop_model

def llm_copy_model(model: Text, new_name: Text, optimizer: Bool = ...) -> Function[int]:
    """Creates the model new_name with the configuration, tokenizer, weights, optimizer state and step of
    another, but without its data, runs and checkpoints. optimizer false: without optimizer state, at step 0.
    Returns the number of llm_param rows. 42710: new_name exists; 42704: unknown model.
    """
copy_model = llm_copy_model

def llm_rename_model(model: Text, new_name: Text) -> Function[None]:
    """Renames the model in every relation: weights, tokenizer, data, runs, log, tape, checkpoints. Checkpoint
    files keep the name under which they were saved. 42704: unknown model; 42710: the new name is taken;
    55P03: another session is changing one of the two.
    """
rename_model = llm_rename_model

def llm_default_model(model: Text = ...) -> Function[str]:
    """The model to use when none is named: the setting pg_llm.default_model, else the only model with weights,
    else gpt2-small. A given model is returned unchanged. 22023, with their names: several other models have
    weights.
    """
default_model = llm_default_model

def llm_parameters(model: Text) -> TableValuedAlias:
    """Name, shape and initialisation of every parameter of the model, from the function that its architecture
    names in llm_arch; of an adapter, its factors. init: normal or residual with standard deviation std,
    uniform between -std and std, zeros, ones.
    """
parameters = llm_parameters

def llm_write_cost(
    model: Text,
    task: Text = ...,
    write_backs: Int = ...,
    n_steps: Int = ...,
    optimizer: Text = ...,
    keep_grad: Bool = ...,
    dtype: Text = ...,
) -> TableValuedAlias:
    """What a task writes for the model, in bytes, before it does: training, finetuning (a copy first),
    initialising, importing, loading (a checkpoint) or copying. A row for each part, of which there are so
    many times, and their total. heap_bytes, toast_bytes and index_bytes are written to llm_param, which grows
    by them at most: by less where vacuum has made room, and to two versions in all if it runs between write-
    backs. wal_bytes is the WAL of it, wal_bytes_max with an image of each page that was not changed since the
    last checkpoint, dead_bytes what vacuum can free afterwards. Upper bounds, at most 5 percent and 1 MB a
    time above what is measured. n_steps adds the log of a run; optimizer drop: the last write-back, a copy or
    a checkpoint is without moments; keep_grad as in llm_train; dtype bf16: what is imported or loaded is
    stored as that (what is trained never is). The rows that llm_finetune makes of its query are not included.
    42704: unknown model; 22023: an argument out of range.
    """
write_cost = llm_write_cost

# ---- the forward pass ----

def llm_forward(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [T, vocab], or [B, T, vocab] for a batch [B, T] of sequences. With targets, the mean loss over the
    targets that are not below 0, a single number. last_only: logits of the last position only. Dropout
    applies only with training.
    """
forward = llm_forward

def llm_forward_gpt2(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the
    logits of the last position, [..., 1, V]. GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied
    head (Radford et al. 2019).
    """
forward_gpt2 = llm_forward_gpt2

def llm_forward_gpt3(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the
    logits of the last position, [..., 1, V]. GPT-3: GPT-2's graph; with the setting band, odd layers see a
    band of tokens (Brown et al. 2020).
    """
forward_gpt3 = llm_forward_gpt3

def llm_forward_microgpt(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the
    logits of the last position, [..., 1, V]. microgpt: RMSNorm without gains, ReLU, no biases, head of its
    own (Karpathy 2026).
    """
forward_microgpt = llm_forward_microgpt

def llm_forward_llama(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the
    logits of the last position, [..., 1, V]. Llama and its kin: rotary positions, RMSNorm, grouped heads,
    gated MLP (Touvron et al. 2023).
    """
forward_llama = llm_forward_llama

def llm_forward_neox(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the
    logits of the last position, [..., 1, V]. GPT-NeoX, Pythia: attention beside the MLP, rotary positions,
    LayerNorm (Black et al. 2022).
    """
forward_neox = llm_forward_neox

def llm_forward_opt(
    model: Text,
    tokens: Ints,
    training: Bool = ...,
    targets: Ints = ...,
    dropout_p: Double = ...,
    last_only: Bool = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the
    logits of the last position, [..., 1, V]. OPT: GPT-2's blocks with ReLU; with norms after the sums its
    350m (Zhang et al. 2022).
    """
forward_opt = llm_forward_opt

def llm_logits(
    tokens: Ints,
    model: Text = ...,
    n_layer: Int = ...,
    n_head: Int = ...,
    d_model: Int = ...,
    vocab_size: Int = ...,
) -> Function[NDArray[np.float32]]:
    """Logits [T, vocab] after each of the tokens, or [B, T, vocab] for a batch. Without a model, the default
    model. Sizes are checked against the configuration (22023).
    """
logits = llm_logits

@overload
def llm_loss(model: Text, tokens: Ints, targets: Ints) -> Function[float]:
    """Mean negative log-likelihood in nats of targets [T] or [B, T] given tokens of the same shape, without
    dropout; targets below 0 are not counted. Of an encoder's pairs: llm_contrastive_loss. 22023: shapes or
    length; 22003: a token outside the vocabulary.

    The loss with the model's sizes as arguments, which are checked against its configuration (22023).
    training: with dropout of probability dropout_p, with the random keys of the model's next training step
    with seed 0.
    """
@overload
def llm_loss(
    model: Text,
    tokens: Ints,
    targets: Ints,
    n_layer: Int,
    n_head: Int,
    d: Int,
    vocab: Int,
    dropout_p: Double = ...,
    training: Bool = ...,
) -> Function[float]:
    """Mean negative log-likelihood in nats of targets [T] or [B, T] given tokens of the same shape, without
    dropout; targets below 0 are not counted. Of an encoder's pairs: llm_contrastive_loss. 22023: shapes or
    length; 22003: a token outside the vocabulary.

    The loss with the model's sizes as arguments, which are checked against its configuration (22023).
    training: with dropout of probability dropout_p, with the random keys of the model's next training step
    with seed 0.
    """
loss = llm_loss

def llm_weight(model: Text, name: Text) -> Function[NDArray[np.float32]]:
    """A parameter of the model as one tensor, a view of the session's memory. All calls in a statement use one
    version of the weights. 42704: the model has no such parameter.
    """
weight = llm_weight

def llm_hidden(model: Text, tokens: Ints, layer: Int = ...) -> Function[NDArray[np.float32]]:
    """Hidden states [T, d_model] of tokens, or [B, T, d_model] for a batch. layer: 0 after the embeddings, k
    after the k-th block; negative values count from the end; the last (the default) is after the final norm,
    where logits are computed from. The same as transformers' hidden_states. 22023: the model has no such
    layer.
    """
hidden = llm_hidden

def llm_embed_text(
    text: Text,
    model: Text = ...,
    layer: Int = ...,
    pooling: Text = ...,
) -> Function[NDArray[np.float32]]:
    """Hidden states of the text in a layer of the model (as for llm_hidden; NULL: the last), pooled. pooling:
    mean [d_model], last (the last token's, [d_model]), or none [T, d_model]. A text longer than the context
    is read in windows that overlap by half; each token's state is from the window that gives it the most
    context. For an empty text the state of the begin-of-text token is used (22023 if there is none). All
    calls in a statement use one version of the weights. 22023: pooling or layer; 42704: unknown model.
    """
embed_text = llm_embed_text

def llm_perplexity(model: Text, text: Text, stride: Int = ...) -> Function[float]:
    """Perplexity of the text under the model: the exponential of the mean negative log-likelihood of its tokens.
    The first token is predicted from the begin-of-text token if the tokenizer has one. A text longer than the
    context is read in windows that start stride tokens apart (default: half the context); each token counts
    once. All calls in a statement use one version of the weights.
    """
perplexity = llm_perplexity

def llm_evaluate(model: Text, split: Text = ..., stride: Int = ..., query: Text = ...) -> TableValuedAlias:
    """Returns the number of tokens predicted, their mean negative log-likelihood in nats, and its exponential,
    the perplexity. Evaluates the rows of the split that belong to the model or to any model, or instead the
    documents in the query's first column, each after the begin-of-text token if there is one. With a stride,
    and for documents, a text longer than the context is read in windows of the context's length that start
    stride tokens apart (for documents by default half the context); each token counts once, in the window
    that gives it the most context. Writes nothing. P0002: no rows; 22023: a row longer than the context
    without a stride; 22003: a token outside the vocabulary.
    """
evaluate = llm_evaluate

def llm_log_evaluation(model: Text, split: Text = ..., stride: Int = ...) -> TableValuedAlias:
    """llm_evaluate(model, split, stride), whose result it also stores in llm_eval_log with the number of steps
    that the weights have taken: called between two calls of training, it measures held-out loss over time.
    40001: the model was trained meanwhile; otherwise as for llm_evaluate.
    """
log_evaluation = llm_log_evaluation

def llm_elements(shape: Ints) -> Function[int]:
    """Number of elements of a tensor of this shape. 22003: more than a bigint can count."""
elements = llm_elements

# ---- embeddings ----

@overload
def llm_embed(text: Text, model: Text = ..., prompt: Text = ...) -> Function[NDArray[np.float32]]:
    """The embedding of the text, as the model's settings say: pooled, of length 1 if normalize says so, cut to
    max_tokens tokens with a NOTICE. prompt: the name of one of its prompts, which is put before the text
    (NULL: its default_prompt, '': none). Of a decoder: what llm_embed_text returns. NULL for NULL. Writes
    nothing. All calls in a statement use one version of the weights. 22023: no such prompt; 42704: unknown
    model, or one without a tokenizer.

    The embedding of each of the texts, in their order, each identical to what a separate call returns, NULL
    for NULL. Several dimensions become one.
    """
@overload
def llm_embed(
    texts: Texts,
    model: Text = ...,
    prompt: Text = ...,
) -> Function[list[NDArray[np.float32] | None]]:
    """The embedding of the text, as the model's settings say: pooled, of length 1 if normalize says so, cut to
    max_tokens tokens with a NOTICE. prompt: the name of one of its prompts, which is put before the text
    (NULL: its default_prompt, '': none). Of a decoder: what llm_embed_text returns. NULL for NULL. Writes
    nothing. All calls in a statement use one version of the weights. 22023: no such prompt; 42704: unknown
    model, or one without a tokenizer.

    The embedding of each of the texts, in their order, each identical to what a separate call returns, NULL
    for NULL. Several dimensions become one.
    """
embed = llm_embed

def llm_embed_missing(
    relation: Text,
    text_column: Text,
    embedding_column: Text,
    model: Text = ...,
    prompt: Text = ...,
    batch_rows: Int = ...,
) -> Call:
    """Fills the column of embeddings, of type tensor, real[] or vector, in all rows of a table that have a text
    and no embedding: llm_embed(text, model, prompt) of each. Commits after batch_rows rows, so that after an
    error or a crash a further call goes on with the rows that are left. Several sessions may do it at once:
    each locks the rows it is at and passes over those that others have locked. Takes the rights of the
    caller: SELECT and UPDATE on the table. Call it outside a transaction block (2D000 otherwise). 42809: a
    view, a foreign or a system table; 42703: no such column; 42804: a column of another type; 22023:
    batch_rows, prompt; 42704: unknown model.
    """
embed_missing = llm_embed_missing

def llm_embed_sequences(
    model: Text,
    tokens: Ints,
    lengths: Ints,
    training: Bool = ...,
    dropout_p: Double = ...,
) -> Function[NDArray[np.float32]]:
    """An encoder's embeddings [B, D] of B sequences of tokens that are laid end to end: lengths has the number
    of tokens of each. 0A000: the model is no encoder; 22023: lengths that are not those of the tokens; 22003:
    a token outside the vocabulary, or a sequence longer than the context.
    """
embed_sequences = llm_embed_sequences

# ---- training ----

def llm_train(
    model: Text,
    n_steps: Int,
    n_layer: Int = ...,
    n_head: Int = ...,
    d: Int = ...,
    vocab: Int = ...,
    dropout_p: Double = ...,
    beta1: Double = ...,
    beta2: Double = ...,
    eps: Double = ...,
    wd: Double = ...,
    lr_max: Double = ...,
    warmup: Int = ...,
    grad_clip: Double = ...,
    grad_workers: Int = ...,
    prune_workers: Int = ...,
    batch_size: Int = ...,
    grad_accum: Int = ...,
    block_size: Int = ...,
    schedule: Text = ...,
    min_lr: Double = ...,
    decay: Text = ...,
    seed: Int = ...,
    data_order: Text = ...,
    start_step: Int = ...,
    total_steps: Int = ...,
    log_every: Int = ...,
    keep_grad: Bool = ...,
    optimizer: Text = ...,
) -> Function[int]:
    """Trains the model for n_steps optimizer steps (AdamW) on the train rows of llm_dataset, in one transaction,
    and returns the id of the run. llm_train_log gets a row per step; all of it or nothing is kept. Calls with
    the same seed, start_step and total_steps together do what one call would do. Loss and gradient of a step
    are means over all target tokens of its batches, however the tokens are divided; the gradient of each
    batch is computed separately and added in their order. A run uses the rows that exist when it begins.
    dropout_p: probability of dropout at embeddings, attention weights and residuals. beta1: AdamW's decay
    rate of the first moment. beta2: AdamW's decay rate of the second moment. eps: added to the denominator of
    AdamW's update. wd: AdamW's decoupled weight decay. lr_max: highest learning rate. warmup: steps of linear
    warm-up to the highest rate; default: 2000, or a tenth of a run that is not longer. grad_clip: clip
    gradients to this global norm. grad_workers: threads for the write-back; 0: pg_llm.threads. prune_workers:
    threads for clearing; 0: pg_llm.threads. batch_size: rows per batch. grad_accum: batches per step, whose
    gradients are added. block_size: how many tokens of a row to use; default: all. schedule: learning rate
    after the warm-up: cosine, linear or constant. min_lr: learning rate at the schedule's end. decay:
    parameters that weight decay applies to: all or matrices. seed: seed of batches and dropout. data_order:
    order of the rows: shuffled (a seeded permutation per epoch) or by_id. start_step: the model's step at
    which the schedule begins; default: this call's. total_steps: length of the schedule, in steps; default:
    this call's. log_every: steps between NOTICEs; 0: none. keep_grad: store the last step's gradients in
    llm_param.grad. optimizer: keep AdamW's moments, or drop them from the last write-back, which then stores
    data only. 55P03: another session trains the model; 55000: a run of it has logged steps whose weights are
    not stored, to be resumed or given up (llm_train_give_up); 40001: its weights or data were changed
    meanwhile; 22023: invalid arguments; 22003: the loss is not finite; P0002: no data, or a step without any
    target; 53200, 53100: it does not fit in memory or on disk.
    """
train = llm_train

def llm_train_loop(
    model: Text,
    n_steps: Int,
    commit_every: Int = ...,
    write_back_every: Int = ...,
    n_layer: Int = ...,
    n_head: Int = ...,
    d: Int = ...,
    vocab: Int = ...,
    dropout_p: Double = ...,
    beta1: Double = ...,
    beta2: Double = ...,
    eps: Double = ...,
    wd: Double = ...,
    lr_max: Double = ...,
    warmup: Int = ...,
    grad_clip: Double = ...,
    grad_workers: Int = ...,
    prune_workers: Int = ...,
    batch_size: Int = ...,
    grad_accum: Int = ...,
    block_size: Int = ...,
    schedule: Text = ...,
    min_lr: Double = ...,
    decay: Text = ...,
    seed: Int = ...,
    data_order: Text = ...,
    start_step: Int = ...,
    total_steps: Int = ...,
    log_every: Int = ...,
    keep_grad: Bool = ...,
    optimizer: Text = ...,
) -> Call:
    """Like llm_train, with bit-identical results, but commits as it goes. The log is committed every
    commit_every steps (NULL: about once a second), the weights are written back every write_back_every steps
    (NULL: when that costs at most 5% of the time) and at the end. Others see the log at once and the weights
    as they were last written; after a crash or an error llm_train_resume(run_id) computes the logged steps
    again and goes on. llm_train_stop(run_id) ends it with its weights stored. llm_train_run has the id of the
    run. Call it outside a transaction block (2D000 otherwise). 55000: an earlier run has logged steps whose
    weights are not stored: llm_train_resume continues it, llm_train_give_up gives them up. 40001: the
    weights, or the dataset rows that existed when the run began, were changed; rows added later do not join
    the run. Weights that only moved (VACUUM FULL, CLUSTER) count as unchanged.
    """
train_loop = llm_train_loop

def llm_train_resume(
    run_id: Int,
    commit_every: Int = ...,
    write_back_every: Int = ...,
    on_mismatch: Text = ...,
) -> Call:
    """Continues an interrupted run of llm_train_loop to its planned end, with the same batches, schedule and
    dropout, so the result is bit-identical to an uninterrupted run. Steps that are logged and whose weights
    are not stored are computed again: their batches, losses and gradient norms must be those of the log to
    the bit. commit_every, write_back_every: as for llm_train_loop; NULL: as the run began. on_mismatch:
    error, or rewind: give up the logged steps that are not stored (they are superseded) and go on from the
    stored weights, with the data and the library as they are now. 40001, naming step and rows: weights, data
    or log have changed since; 55000: another library whose self-test fails, other numerical rules, or steps
    of another run that are logged and not stored; 22023: the run is complete. An error marks the run as
    failed in llm_train_run; it can be resumed again. Call it outside a transaction block.
    """
train_resume = llm_train_resume

def llm_train_stop(run_id: Int) -> Function[bool]:
    """Asks the session that runs llm_train_loop or llm_train_resume for this run to write its weights back and
    end after the present step, with status stopped; llm_train_resume can continue it. Returns at once: true,
    or false with a NOTICE where no session runs it. 42704: unknown run; 42501: the caller neither has the
    rights of the role that trains nor may update llm_train_run.
    """
train_stop = llm_train_stop

def llm_train_give_up(run_id: Int) -> Function[int]:
    """Gives up the logged steps of a run whose weights are not stored: they stay in llm_train_log as superseded,
    and training goes on from the stored weights, by a new run or by llm_train_resume. Returns the number of
    steps. 42704: unknown run; 55P03: a session trains or changes the model.
    """
train_give_up = llm_train_give_up

def llm_replay(run_id: Int, first: Int = ..., last: Int = ...) -> TableValuedAlias:
    """Computes steps first to last of a run again (NULL: from its first, to its last logged one) and compares
    them with llm_train_log: the logged loss, the one that came out, and whether loss, gradient norm and batch
    are the same to the bit. It begins with the newest checkpoint below first that has the optimizer state,
    else with the initialisation by its seed, and computes the steps up to first without returning them.
    Writes nothing, so that it runs on replicas, too. Requires llm_trainer. P0002: neither is there; the
    message names the earliest step that can be replayed; 40001, naming them: rows of llm_dataset have changed
    since; 42704: unknown run; 22023: steps that the run did not log.
    """
replay = llm_replay

def llm_finetune(
    model: Text,
    query: Text,
    steps: Int,
    new_name: Text = ...,
    block_size: Int = ...,
    stride: Int = ...,
    validation: Double = ...,
    batch_size: Int = ...,
    grad_accum: Int = ...,
    lr_max: Double = ...,
    warmup: Int = ...,
    schedule: Text = ...,
    min_lr: Double = ...,
    dropout_p: Double = ...,
    wd: Double = ...,
    grad_clip: Double = ...,
    decay: Text = ...,
    seed: Int = ...,
    log_every: Int = ...,
    beta1: Double = ...,
    beta2: Double = ...,
    eps: Double = ...,
    grad_workers: Int = ...,
    prune_workers: Int = ...,
    data_order: Text = ...,
    start_step: Int = ...,
    total_steps: Int = ...,
    keep_grad: Bool = ...,
    optimizer: Text = ...,
) -> TableValuedAlias:
    """Copies the model as new_name (default: model-finetuned), tokenizes the documents in the query's first
    column into rows of block_size tokens (default: the context), holds out the fraction validation of them,
    and trains the copy for steps steps with fresh optimizer state. Returns its name and its perplexity on the
    held-out rows before and after. The original model does not change. The other arguments are those of
    llm_fill_dataset and llm_train. Runs in one transaction.
    """
finetune = llm_finetune

def llm_train_step(
    model: Text,
    batch_id: Int,
    n_layer: Int = ...,
    n_head: Int = ...,
    d: Int = ...,
    vocab: Int = ...,
    dropout_p: Double = ...,
    beta1: Double = ...,
    beta2: Double = ...,
    eps: Double = ...,
    wd: Double = ...,
    lr_max: Double = ...,
    warmup: Int = ...,
    total_steps: Int = ...,
    grad_clip: Double = ...,
    grad_workers: Int = ...,
    prune_workers: Int = ...,
) -> Function[float]:
    """One training step on the llm_dataset row batch_id, stored before it returns; the loss before the step. The
    rate is that of the model's next step in a cosine schedule of warmup and total_steps steps counted from
    the model's first; without total_steps it stays at lr_max after the warm-up. Dropout is keyed with seed 0.
    The same bits by hand:
      SELECT llm_materialize_params(:model);
      UPDATE llm_autograd_mode SET flag = true;
      SELECT llm_loss(:model, tokens, target, NULL, NULL, NULL, NULL, :dropout_p, true)
        FROM llm_dataset WHERE id = :batch_id;
      UPDATE llm_autograd_mode SET flag = false;
      SELECT llm_backprop(NULL, :model);
      SELECT llm_accumulate_grads(:model);
      UPDATE llm_param SET (data, m, v) = (
          SELECT s.new_weight, s.new_m, s.new_v FROM pg_llm_adamw_step(data, grad, m, v,
            pg_llm_lr_schedule(step + 1, :warmup, :total_steps, :lr_max), :beta1, :beta2, :eps, :wd, step + 1)
    s),
        step = step + 1 WHERE model = :model;
      SELECT llm_prune_autograd_state();
    """
train_step = llm_train_step

def llm_materialize_params(model: Text) -> Function[int]:
    """The first step of training by hand: reads the model's weights and optimizer state into this session's
    memory and starts with zero gradients and an empty tape. Returns the number of llm_param rows. Also stores
    the parameters by name in llm_tensor with their parts joined (those below 1 GB), unless pg_llm.record is
    off, the transaction is read-only, or the role may not write there. llm_tensor_map shows their ids after a
    pass was recorded.
    """
materialize_params = llm_materialize_params

def llm_backprop(start_id: Int = ..., model: Text = ...) -> Function[int]:
    """Computes the gradients of the recorded pass by reverse-mode differentiation from start_id, the tape id of
    a single number (NULL: the newest op). Gradients of parameters stay in this session's memory for
    llm_accumulate_grads; pg_llm_grad(tensor) returns those of tracked tensors. Returns the number of ops.
    """
backprop = llm_backprop

def llm_accumulate_grads(model: Text, workers: Int = ...) -> Function[int]:
    """Stores the gradients that this session's backward passes have summed in llm_param.grad (NULL for
    parameters without one) and returns the number of rows. workers: threads, 0 for pg_llm.threads. 55P03:
    another session trains the model; 40001: another transaction changed its weights meanwhile; 42501: a
    policy or a trigger prevents some of the rows from being written.
    """
accumulate_grads = llm_accumulate_grads

def llm_prune_autograd_state(workers: Int = ...) -> Function[int]:
    """The last step of training by hand: frees the tape in this session's memory with its tensors, removes its
    rows from llm_tape, llm_tensor_rt and llm_tensor_map (unless pg_llm.tape_keep = all), and returns the
    number of its ops. llm_prune_runs removes what training runs recorded.
    """
prune_autograd_state = llm_prune_autograd_state

def llm_tape_flush(run: Int = ..., model: Text = ..., step: Int = ...) -> Function[int]:
    """Writes the pass in this session's memory to llm_tape, llm_tensor_rt and llm_tensor_map and returns the
    number of new tape rows. Called again after the backward pass, it adds the norms of the gradients. With
    pg_llm.tape_keep = last, the model's earlier passes are removed. Writes nothing if pg_llm.record is off,
    tape_keep is none, the transaction is read-only, or the role has no INSERT privilege on llm_tape.
    """
tape_flush = llm_tape_flush

def llm_prune_runs(model: Text = ..., keep: Int = ...) -> TableValuedAlias:
    """Removes all but the newest keep ended runs of the model (NULL: of each model), with their log, clippings
    and recorded passes. Returns the numbers of runs and passes removed. Weights and checkpoints are kept. A
    removed run cannot be resumed.
    """
prune_runs = llm_prune_runs

def llm_contrastive_loss(
    model: Text,
    tokens: Ints,
    targets: Ints,
    training: Bool = ...,
    dropout_p: Double = ...,
) -> Function[NDArray[np.float32]]:
    """The contrastive loss of a batch of pairs, 0-d: tokens [T] or [B, T] hold in each row an anchor, its
    positive and any hard negatives, and targets number these sequences: 0, 1, 2 and on, below 0 for padding.
    The mean over the rows of -log softmax of (anchor . candidate) / temperature at the row's own positive;
    the candidates are the positives and negatives of all rows (multiple negatives ranking, Henderson et al.
    2017; InfoNCE, van den Oord et al. 2018), without those that are the same text as the own positive or
    another positive of the same anchor. temperature is the model's setting, 0.05 where it has none. 22023,
    naming the row: no anchor or positive, a gap in the numbers, a sequence longer than the model takes; a
    single pair without negatives.
    """
contrastive_loss = llm_contrastive_loss

def llm_recall(model: Text, split: Text = ..., k: Int = ...) -> TableValuedAlias:
    """Of the split's different pairs, the share whose positive is among the k of all the split's positives
    (candidates) that are nearest to the anchor, by dot product (the cosine, where the model normalises). A
    text that occurs several times is one candidate, other positives of the same anchor do not count against a
    pair, and equal similarity does: a model that makes one vector of everything has recall 0. Writes nothing.
    P0002: no rows; 0A000: the model is no encoder; 22023: k is below 1 or not below the number of candidates,
    or a row is no pair.
    """
recall = llm_recall

# ---- tokenizers and data ----

def llm_encode(
    text: Text,
    model: Text = ...,
    special: Bool = ...,
    bos: Bool = ...,
) -> Function[Sequence[int]]:
    """Token ids of the text under the model's tokenizer, without begin or end tokens; bos puts the begin-of-text
    token in front (llm_begin_token; 22023 if there is none). Added tokens are recognised in the text as in
    Hugging Face's tokenizers, but special ones such as <|endoftext|> only with special => true: else they are
    text like any other. 22021: a character that the tokenizer does not know; 42704: the model has no
    tokenizer.
    """
encode = llm_encode

def llm_encode_sequence(text: Text, model: Text = ..., max_tokens: Int = ...) -> Function[Sequence[int]]:
    """Token ids of the text as a model reads it, as Hugging Face's tokenizer(text, truncation=True) gives them:
    special tokens in the text recognised, the tokens of the tokenizer's template around it ([CLS] and [SEP]
    of BERT), cut to max_tokens in all. 22023: max_tokens has no room for the template; 42704: the model has
    no tokenizer.
    """
encode_sequence = llm_encode_sequence

def llm_decode(ids: Ints, model: Text = ...) -> Function[str]:
    """The text of token ids under the model's tokenizer, of WordPiece as its decoder in Hugging Face's
    tokenizers gives it. BOS has no text. U+FFFD replaces bytes that are not valid UTF-8, and NUL, which a
    text cannot contain; llm_token_bytes returns the bytes themselves. 22003: an unknown token; 42704: the
    model has no tokenizer.
    """
decode = llm_decode

def llm_build_char_tokenizer(model: Text, query: Text) -> Function[int]:
    """Replaces the model's tokenizer with one token for each character in the query's first column, with ids in
    code point order, and BOS, whose id is the number of characters. Returns the size of the vocabulary, BOS
    included. 22023: an existing model has another vocab; P0002: the query returned no text.
    """
build_char_tokenizer = llm_build_char_tokenizer

@overload
def llm_load_bpe(
    model: Text,
    vocab: Bytes,
    merges: Bytes = ...,
    added: Json = ...,
    settings: Json = ...,
) -> Function[int]:
    """Replaces the model's tokenizer with the contents of vocab.json and merges.txt (or encoder.json and
    vocab.bpe), or of a .tiktoken file alone, and checks that they match. added: added tokens and the tokens
    that begin and end a text, as for llm_add_tokens; NULL: tokens of the form <|...|> are special and
    <|endoftext|> ends a text. settings: pre_tokenizer (gpt2, smollm, llama3, qwen2, o200k, tekken: how a text
    is cut into pieces), normalizer (null, nfc), ignore_merges (false), drop_unknown (false: a byte without a
    token is 22021), prefix and suffix (arrays of the ids around a text); NULL: GPT-2's. Returns the number of
    tokens. Reads no file on the server. 22023, with the line: contents that are not such a file, or settings
    that do not exist; 0A000: the database's encoding lacks the byte-level alphabet.

    Like llm_load_bpe(text, bytea, bytea, jsonb, jsonb), from texts.
    """
@overload
def llm_load_bpe(model: Text, vocab: Text, merges: Text = ...) -> Function[int]:
    """Replaces the model's tokenizer with the contents of vocab.json and merges.txt (or encoder.json and
    vocab.bpe), or of a .tiktoken file alone, and checks that they match. added: added tokens and the tokens
    that begin and end a text, as for llm_add_tokens; NULL: tokens of the form <|...|> are special and
    <|endoftext|> ends a text. settings: pre_tokenizer (gpt2, smollm, llama3, qwen2, o200k, tekken: how a text
    is cut into pieces), normalizer (null, nfc), ignore_merges (false), drop_unknown (false: a byte without a
    token is 22021), prefix and suffix (arrays of the ids around a text); NULL: GPT-2's. Returns the number of
    tokens. Reads no file on the server. 22023, with the line: contents that are not such a file, or settings
    that do not exist; 0A000: the database's encoding lacks the byte-level alphabet.

    Like llm_load_bpe(text, bytea, bytea, jsonb, jsonb), from texts.
    """
load_bpe = llm_load_bpe

@overload
def llm_load_wordpiece(model: Text, vocab: Bytes, settings: Json = ..., added: Json = ...) -> Function[int]:
    """Replaces the model's tokenizer with WordPiece, BERT's, of the contents of vocab.txt, one token in each
    line, or of a JSON object of token to id. settings: lowercase (true), strip_accents (null: as lowercase),
    handle_chinese_chars (true), clean_text (true), unk_token ([UNK]), continuing_subword_prefix (##),
    max_input_chars_per_word (100), cleanup (true: llm_decode leaves out blanks before punctuation), template
    (prefix and suffix, arrays of the ids around a text; left out, [CLS] and [SEP] if the vocabulary has
    both). added: added tokens as for llm_add_tokens; NULL: [PAD], [UNK], [CLS], [SEP] and [MASK] are special.
    Returns the number of tokens. 22023: contents that are not such a vocabulary, with the line, one without
    unk_token, or settings that do not exist; 0A000: the database's encoding cannot hold the tokens.

    Like llm_load_wordpiece(text, bytea, jsonb, jsonb), from a text.
    """
@overload
def llm_load_wordpiece(model: Text, vocab: Text, settings: Json = ..., added: Json = ...) -> Function[int]:
    """Replaces the model's tokenizer with WordPiece, BERT's, of the contents of vocab.txt, one token in each
    line, or of a JSON object of token to id. settings: lowercase (true), strip_accents (null: as lowercase),
    handle_chinese_chars (true), clean_text (true), unk_token ([UNK]), continuing_subword_prefix (##),
    max_input_chars_per_word (100), cleanup (true: llm_decode leaves out blanks before punctuation), template
    (prefix and suffix, arrays of the ids around a text; left out, [CLS] and [SEP] if the vocabulary has
    both). added: added tokens as for llm_add_tokens; NULL: [PAD], [UNK], [CLS], [SEP] and [MASK] are special.
    Returns the number of tokens. 22023: contents that are not such a vocabulary, with the line, one without
    unk_token, or settings that do not exist; 0A000: the database's encoding cannot hold the tokens.

    Like llm_load_wordpiece(text, bytea, jsonb, jsonb), from a text.
    """
load_wordpiece = llm_load_wordpiece

def llm_load_sentencepiece(
    model: Text,
    vocab: Json,
    merges: Json,
    settings: Json = ...,
    added: Json = ...,
) -> Function[int]:
    """Replaces the model's tokenizer with SentencePiece's BPE, that of Llama 2, TinyLlama, Mistral and Gemma.
    vocab is an object of token to id, merges an array of pairs of tokens, the first to merge in front, as in
    tokenizer.json. settings: prefix_space (prepend: a blank is put before every text; always: where none
    stands; first: before a text, not behind an added token; never), split (false; true: nothing merges across
    a blank), strip (true: llm_decode leaves out the first blank), prefix and suffix (arrays of the ids around
    a text). added: added tokens as for llm_add_tokens; NULL: <unk>, <s> and </s> are special, <s> begins and
    </s> ends a text. Returns the number of tokens. 22023: contents that are not such a vocabulary, or
    settings that do not exist; 0A000: the database's encoding lacks U+2581.
    """
load_sentencepiece = llm_load_sentencepiece

def llm_prefix_tokens(model: Text) -> Function[Sequence[int]]:
    """The ids of the tokens that the model's tokenizer puts before a text, such as Llama's <|begin_of_text|>;
    empty if there are none.
    """
prefix_tokens = llm_prefix_tokens

def llm_token_bytes(ids: Ints, model: Text) -> Function[bytes]:
    """The bytes of the tokens, concatenated. 22003: an unknown token."""
token_bytes = llm_token_bytes

def llm_end_token(model: Text) -> Function[int]:
    """The id of the token that ends a document: the one with the flag eos in llm_bpe_vocab, else <|endoftext|>,
    else BOS; NULL if there is none.
    """
end_token = llm_end_token

def llm_begin_token(model: Text) -> Function[int]:
    """The id of the token that begins a document: the one with the flag bos in llm_bpe_vocab, else the one that
    ends a document; NULL if there is none.
    """
begin_token = llm_begin_token

def llm_end_tokens(model: Text) -> Function[Sequence[int]]:
    """The ids of the tokens that end a generation: those with the flags eos (first) or stop in llm_bpe_vocab; if
    no token has these flags, <|endoftext|>, else <|bos|>. Empty if there is none.
    """
end_tokens = llm_end_tokens

def pg_llm_load_bpe_vocab(path: Text, model: Text) -> Function[int]:
    """Replaces the model's tokens with those of a file on the server: vocab.json, encoder.json, or .tiktoken,
    which also contains the merges. Returns the number of tokens. For roles with the privileges of
    pg_read_server_files. 58P01: no such file; 22023, with the line: not one of these formats.
    """
load_bpe_vocab = pg_llm_load_bpe_vocab

def pg_llm_load_bpe_merges(path: Text, model: Text) -> Function[int]:
    """Replaces the model's merge rules with those of a file on the server, merges.txt or vocab.bpe. Returns the
    number of rules. For roles with the privileges of pg_read_server_files. 58P01: no such file; 22023, with
    the line: not one of these formats.
    """
load_bpe_merges = pg_llm_load_bpe_merges

def llm_train_bpe(model: Text, query: Text, vocab: Int) -> Function[int]:
    """Replaces the model's tokenizer with byte pair encoding learned from the query's first column: the 256
    bytes, merges of the most frequent pairs (ties go to the lowest ids; pairs that occur only once are not
    merged), and <|endoftext|>. Returns the size of the vocabulary, which is below vocab only if the text has
    no more pairs. 22023: an existing model's vocab is smaller; P0002: the query returned no text.
    """
train_bpe = llm_train_bpe

def llm_tokenizer_kind(model: Text) -> Function[str]:
    """char for a character tokenizer, bpe for byte-level BPE, sentencepiece for SentencePiece's BPE, wordpiece
    for WordPiece, NULL if the model has no tokenizer.
    """
tokenizer_kind = llm_tokenizer_kind

def llm_boundaries(model: Text) -> TableValuedAlias:
    """The tokens before the first of joined documents, between two of them, and after the last: the tokens that
    end and begin a document, only one where they are the same, none where the tokenizer has none.
    """
boundaries = llm_boundaries

def llm_fill_dataset(
    model: Text,
    query: Text,
    block_size: Int = ...,
    stride: Int = ...,
    validation: Double = ...,
    seed: Int = ...,
    keep_order: Bool = ...,
) -> TableValuedAlias:
    """Replaces the model's rows of llm_dataset with the documents in the query's first column and returns the
    number of rows per split. Duplicate documents count once. The fraction validation of the documents, drawn
    by seed, is held out; of a single document, its end. No held-out row equals a training row. keep_order:
    rows are in the query's order and duplicates are kept; validation is then a fraction of the distinct
    documents, and all copies of a document are held out or none. The tokenizer's begin and end tokens, if
    any, are put around documents. block_size: the documents of a split are joined and cut into rows of that
    many tokens that start stride tokens apart (default: block_size). Without it each document is a row,
    truncated to the context, and a NOTICE reports what was cut off.
    """
fill_dataset = llm_fill_dataset

def llm_fill_pairs(
    model: Text,
    query: Text,
    split: Text = ...,
    validation: Double = ...,
    seed: Int = ...,
    anchor_prompt: Text = ...,
    positive_prompt: Text = ...,
    max_tokens: Int = ...,
) -> TableValuedAlias:
    """Replaces an encoder's rows of a split of llm_dataset with the pairs of a query: its first column is the
    anchor, its second the positive, further ones are hard negatives, of which NULL and empty ones are left
    out. Equal pairs count once; rows without an anchor or a positive are left out, which a NOTICE counts. The
    fraction validation of the pairs, drawn by seed, goes into split validation instead, whose rows are
    replaced then. A split other than train leaves out pairs that train has: fill train first. anchor_prompt,
    positive_prompt (which negatives have, too): names of prompts among the model's settings, put before the
    texts (NULL: its default_prompt, '': none). Texts are cut to max_tokens with the special tokens (default:
    what the model takes), which a NOTICE counts. Returns the numbers of pairs. P0002: there is none; 42804:
    the query has fewer than two columns; 0A000: the model is no encoder; 22023: it has no such prompt; 42704:
    it has no tokenizer.
    """
fill_pairs = llm_fill_pairs

# ---- generation ----

@overload
def llm_generate(
    prompt: Text,
    max_tokens: Int = ...,
    temperature: Double = ...,
    top_k: Int = ...,
    top_p: Double = ...,
    model: Text = ...,
    seed: Int = ...,
    stop: Texts = ...,
    echo: Bool = ...,
    repetition_penalty: Double = ...,
    presence_penalty: Double = ...,
    frequency_penalty: Double = ...,
) -> Function[str]:
    """Generates text that continues the prompt; with echo, prompt and text. temperature 0: always the most
    likely token; top_k 0 and top_p 1: no limit; seed: the same seed gives the same text; stop: the text ends
    before any of these texts. It also ends at the end-of-text token. Of a prompt longer than the context only
    the last tokens are used; an empty prompt starts a document. repetition_penalty applies to the tokens of
    prompt and text (Keskar et al. 2019), presence_penalty and frequency_penalty to those of the text. Without
    a model, the default model: the setting pg_llm.default_model, else the only model with weights, else
    gpt2-small. Writes nothing. 22023: an argument is out of range.

    Generates a text for each of the prompts, in their order, each identical to what a separate call with
    these arguments returns.
    """
@overload
def llm_generate(
    prompts: Texts,
    max_tokens: Int = ...,
    temperature: Double = ...,
    top_k: Int = ...,
    top_p: Double = ...,
    model: Text = ...,
    seed: Int = ...,
    stop: Texts = ...,
    echo: Bool = ...,
    repetition_penalty: Double = ...,
    presence_penalty: Double = ...,
    frequency_penalty: Double = ...,
) -> Function[Sequence[str]]:
    """Generates text that continues the prompt; with echo, prompt and text. temperature 0: always the most
    likely token; top_k 0 and top_p 1: no limit; seed: the same seed gives the same text; stop: the text ends
    before any of these texts. It also ends at the end-of-text token. Of a prompt longer than the context only
    the last tokens are used; an empty prompt starts a document. repetition_penalty applies to the tokens of
    prompt and text (Keskar et al. 2019), presence_penalty and frequency_penalty to those of the text. Without
    a model, the default model: the setting pg_llm.default_model, else the only model with weights, else
    gpt2-small. Writes nothing. 22023: an argument is out of range.

    Generates a text for each of the prompts, in their order, each identical to what a separate call with
    these arguments returns.
    """
generate = llm_generate

def llm_generate_stream(
    prompt: Text,
    max_tokens: Int = ...,
    temperature: Double = ...,
    top_k: Int = ...,
    top_p: Double = ...,
    model: Text = ...,
    seed: Int = ...,
    stop: Texts = ...,
    echo: Bool = ...,
    repetition_penalty: Double = ...,
    presence_penalty: Double = ...,
    frequency_penalty: Double = ...,
) -> TableValuedAlias:
    """Like llm_generate, one row per token: the piece of text that it adds, and the text so far. A client that
    fetches through a cursor gets each row as soon as it is computed. The pieces concatenated are the text.
    The last row completes the text; if an end-of-text token ended it, the row is that token's. Writes
    nothing.
    """
generate_stream = llm_generate_stream

def llm_beam_search(
    prompt: Text,
    beam_width: Int = ...,
    max_tokens: Int = ...,
    model: Text = ...,
    length_penalty: Double = ...,
    early_stopping: Bool = ...,
) -> TableValuedAlias:
    """Returns the beam_width best continuations of at most max_tokens tokens, best first, as transformers' beam
    search without sampling finds them. score: the sum of the tokens' log probabilities divided by (number of
    tokens) ^ length_penalty (0: the sum itself); ties are broken by token ids. token_ids include a final end-
    of-text token; score counts it, text leaves it out. The search stops when no beam can improve on the
    finished continuations; with early_stopping, as soon as beam_width continuations are finished. Writes
    nothing. 22023: an argument is out of range.
    """
beam_search = llm_beam_search

def llm_release(shared: Bool = ...) -> Function[int]:
    """Frees the memory in which this session keeps weights that it no longer uses; with shared => true also
    removes the files of this database's models that all sessions map, which the next use writes again.
    Returns the number of bytes. 42501: the role may not write the weights.
    """
release = llm_release

# ---- conversations ----

def llm_chat(
    messages: Json,
    model: Text = ...,
    max_tokens: Int = ...,
    temperature: Double = ...,
    top_k: Int = ...,
    top_p: Double = ...,
    seed: Int = ...,
    stop: Texts = ...,
    echo: Bool = ...,
    repetition_penalty: Double = ...,
    presence_penalty: Double = ...,
    frequency_penalty: Double = ...,
    overflow: Text = ...,
) -> Function[str]:
    """Answers a conversation, [{"role": "system" | "user" | "assistant", "content": "a text"}, ...], by the
    model's own chat template. What a message says never becomes a special token of the tokenizer. The
    arguments are those of llm_generate; the answer also ends at the token with which the template ends one,
    and where the context is full. overflow: what happens when conversation and answer do not fit into the
    context: slide leaves out the oldest turns after the system message, so that max_tokens, or half of the
    context, are left for the answer; error refuses. A client that renders the template itself passes
    {"parts": [{"template": "..."} | {"content": "..."}, ...], "ending": "..."}. Writes nothing. 22023: an
    argument is out of range, messages have another form or do not fit; 0A000: only clients render the model's
    chat template; 42704: the model has none.
    """
chat = llm_chat

def llm_chat_stream(
    messages: Json,
    model: Text = ...,
    max_tokens: Int = ...,
    temperature: Double = ...,
    top_k: Int = ...,
    top_p: Double = ...,
    seed: Int = ...,
    stop: Texts = ...,
    echo: Bool = ...,
    repetition_penalty: Double = ...,
    presence_penalty: Double = ...,
    frequency_penalty: Double = ...,
    overflow: Text = ...,
) -> TableValuedAlias:
    """Like llm_chat, one row per token, as llm_generate_stream gives them: the piece of the answer that it adds,
    and the answer so far. Writes nothing.
    """
chat_stream = llm_chat_stream

def llm_chat_prompt(messages: Json, model: Text = ...) -> TableValuedAlias:
    """What the model sees of a conversation, as tokens and as text: transformers' apply_chat_template with
    add_generation_prompt, but no message's content becomes a special token. Errors as for llm_chat.
    """
chat_prompt = llm_chat_prompt

def llm_chat_template(model: Text = ...) -> TableValuedAlias:
    """The model's chat template; which of those that the server renders it is (NULL: another, which only clients
    render), the system message that it puts before a conversation without one, and the tokens that begin and
    end a text. 42704: the model has no chat template.
    """
chat_template = llm_chat_template

def llm_set_chat_template(model: Text, template: Text) -> Function[None]:
    """Gives the model a chat template, in Jinja as tokenizer_config.json has it; NULL: none. Loading a tokenizer
    removes it. 42704: the model has no tokenizer; 22023: it is empty.
    """
set_chat_template = llm_set_chat_template

# ---- weights in and out ----

def pg_llm_import_npz(path: Text, model: Text, megatron_version: Double = ...) -> Function[int]:
    """Replaces the model's weights with those of a file on the server: .npz, or a gzip stream of (name, .npy)
    records, recognised by its contents. Tensor names are those of Hugging Face, nanoGPT or Megatron-LM (whose
    queries, keys and values need megatron_version: 1.0, or 2.0 and later). The model must be in
    llm_model_config; its step becomes 0 and its log rows are marked as superseded. Returns the number of
    weights. Requires pg_read_server_files. 22000: damaged file; 22023: another model's file.
    """
import_npz = pg_llm_import_npz

def pg_llm_import_safetensors(path: Text, model: Text, megatron_version: Double = ...) -> Function[int]:
    """Replaces the model's weights with those of a .safetensors file on the server; otherwise like
    pg_llm_import_npz.
    """
import_safetensors = pg_llm_import_safetensors

def pg_llm_export_npz(path: Text, model: Text, gzip: Bool = ...) -> Function[int]:
    """Writes the model's weights to an .npz file on the server, or as a gzip stream of (name, .npy) records.
    Returns its size in bytes. An existing file is replaced atomically. Requires pg_write_server_files.
    """
export_npz = pg_llm_export_npz

def pg_llm_export_safetensors(path: Text, model: Text) -> Function[int]:
    """Writes the model's weights to a .safetensors file on the server that transformers can load: parameters
    that are stored as bf16 as BF16, others as F32; otherwise like pg_llm_export_npz.
    """
export_safetensors = pg_llm_export_safetensors

def llm_checkpoint_save(model: Text, note: Text = ..., keep: Int = ...) -> Function[int]:
    """Saves the model's parameters, optimizer state, step, configuration and tokenizer to a file in the
    checkpoint directory (pg_llm.checkpoint_dir) and returns the checkpoint's id. The file and its row appear
    together when the transaction commits, or not at all. keep: keep only this many of the model's newest
    checkpoints, and remove the older ones that the caller can see and delete. Requires llm_trainer. 25006: on
    a replica or in a read-only transaction; 53100: the disk is full.
    """
checkpoint_save = llm_checkpoint_save

def llm_checkpoint_load(model: Text, id: Int) -> Function[int]:
    """Restores the model to its state when the checkpoint was saved: parameters, optimizer state, step,
    configuration, tokenizer. Log rows of later steps are marked as superseded. Returns the step. The file is
    verified before anything is changed. Requires llm_trainer. 42704: unknown id; 22023: another model's
    checkpoint; 22000: damaged file; 58P01: the file is not on this server; 55P03: the model is being trained;
    25006: on a replica or in a read-only transaction.
    """
checkpoint_load = llm_checkpoint_load

def llm_checkpoint_orphans(remove: Bool = ...) -> TableValuedAlias:
    """Folders that dropped databases left in the checkpoint directories, with the number and size of their
    files. remove: also deletes them, immediately and permanently. Superusers only.
    """
checkpoint_orphans = llm_checkpoint_orphans

def llm_checkpoint_sweep() -> Function[None]:
    """When the transaction commits, removes this database's files in the checkpoint directories that no row of
    llm_checkpoint names and that no running transaction is writing. Rows that policies hide from the caller
    count, too. Requires llm_trainer.
    """
checkpoint_sweep = llm_checkpoint_sweep

def llm_publish(model: Text) -> Function[str]:
    """Makes a publication of the model for logical replication and returns its name: weights without gradients
    and optimizer state, configuration, tokenizer. Other databases get the model by CREATE SUBSCRIPTION and
    use it; see docs/operate/replication.md. Publishing it again brings the publication up to date. Dropping
    the model removes it from subscribers as well; the publication remains until llm_unpublish. Requires
    ownership of the tables and CREATE on the database (42501). 55000: wal_level is not logical, or a table's
    replica identity is not its primary key; 42704: unknown model; 42710: another publication has the name.
    """
publish = llm_publish

def llm_unpublish(model: Text) -> Function[None]:
    """Drops the publication that llm_publish(model) made, also after the model itself. Subscribers keep the rows
    they have; drop their subscriptions first. 42704: the model is not published; 42501: the publication
    belongs to another role; 42710: a publication of that name is not llm_publish's.
    """
unpublish = llm_unpublish

def llm_publication(model: Text) -> Function[str]:
    """The name of the publication that llm_publish(model) makes: llm_model_ and the model's name, of a long name
    its beginning and a hash.
    """
publication = llm_publication

FUNCTIONS: tuple[SqlFunction, ...]
