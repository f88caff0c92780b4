"""The database's functions as SQLAlchemy expressions, for use inside any `select()`.

    select(functions.llm_generate("SELECT is", max_tokens=40, model="catalog-gpt"))
    select(Page.id, functions.llm_perplexity("catalog-gpt", Page.body)).order_by(...)
    select(functions.llm_evaluate("catalog-gpt").c.perplexity)
    connection.execute(functions.llm_train_loop("catalog-gpt", 200, lr_max=1e-3))

Arguments may be Python values or columns, by position or by name; what is not given takes the database's
default. Functions that return rows give something to select from, procedures a CALL. Each has a short name
too: `functions.generate`, `functions.import_npz`.

Written by models/codegen.py from models/: run python -m llm_sql.migrations.freeze, do not edit.
"""
# fmt: off

from __future__ import annotations

from .sql_function import Procedure, RowsFunction, SqlFunction

# ---- models ----

llm_create_model = create_model = SqlFunction(
    'llm_create_model',
    (
        'model text, arch text?, n_layer integer?, n_head integer?, d_model integer?, n_positions '
        'integer?, vocab integer?, seed bigint?, settings jsonb?',
        'bigint',
    ),
    doc=(
        'Registers a model and initialises its weights. Returns the number of weights. Sizes that are not '
        "given are those of the architecture's smallest model in llm_model_config, or of the smallest "
        "GPT-2; vocab is that of the model's tokenizer if it already has one. settings: what the "
        'architecture knows beyond sizes, as llm_arch.settings declares. 42710: the model exists; 42704: '
        'unknown architecture; 22023: inconsistent sizes, or a setting that is unknown or not allowed; '
        '53100: the weights do not fit on the disk; 54000: more than 10,000 layers or 10^12 weights. '
        'VACUUM (TRUNCATE) llm_param frees the space of a failed or dropped model.'
    ),
)
llm_create_adapter = create_adapter = SqlFunction(
    'llm_create_adapter',
    (
        'name text, base text, rank integer?, alpha double precision?, targets text[]?, seed bigint?',
        'bigint',
    ),
    doc=(
        'Makes a LoRA adapter, a model whose rows of llm_param are two small matrices for each matrix of '
        'its base that it adds to: x w becomes x w + (alpha / rank) (x a) b. All else it reads from its '
        'base, whose weights it never changes. It begins with b = 0, and a as PEFT begins it, drawn from '
        'the seed; so it first computes what its base does. targets: the matrices, by our names '
        "(attn.c_attn), by their last part (c_attn; q or q_proj) or by Hugging Face's names; NULL: those "
        'of attention. Returns the number of weights. It is used, trained, saved, evaluated and dropped '
        'like any model, as long as its base has the weights that it was made for (55000 otherwise). '
        '42710: the name is taken; 42704: unknown base; 22023: unknown targets, a rank that they do not '
        'have, alpha 0, a base that is an adapter; 0A000: an encoder; P0002: the base has no weights; '
        '40001: its weights were changed meanwhile.'
    ),
)
llm_recognise_base = recognise_base = SqlFunction(
    'llm_recognise_base',
    (
        'base text',
        'bigint',
    ),
    doc=(
        "Hashes the model's weights once for all of its adapters: to be called after a restore, or where "
        'a subscription brought it, which write the same numbers to other rows; until then each session '
        'hashes them. Returns the number of adapters that were made for these weights. Requires '
        'llm_trainer. 42704: unknown model; 40001: they were changed meanwhile.'
    ),
)
llm_init_model = init_model = SqlFunction(
    'llm_init_model',
    (
        'model text, seed bigint?',
        'bigint',
    ),
    doc=(
        'Gives the model new weights, initialised as its architecture defines (GPT-2: normal 0.02, '
        'residual projections scaled by 1/sqrt(2 n_layer), zero biases, unit gains), at step 0 and '
        'without optimizer state. Its log rows are marked as superseded. The same seed gives the same '
        'bits. Returns the number of weights. 55P03: another session is changing the model; 53100: the '
        'weights do not fit on the disk.'
    ),
)
llm_drop_model = drop_model = SqlFunction(
    'llm_drop_model',
    (
        'model text',
        'void',
    ),
    doc=(
        'Removes the model: configuration, weights, tokenizer, its own data sets, runs, log and tape. Its '
        'checkpoints, files and rows, are kept. 2BP01: it is the base of adapters; 55P03: another session '
        'is changing the model. The space of its weights can be reused after a vacuum; VACUUM (TRUNCATE) '
        'llm_param returns it to the system.'
    ),
)
llm_copy_model = copy_model = SqlFunction(
    'llm_copy_model',
    (
        'model text, new_name text, optimizer boolean?',
        'bigint',
    ),
    doc=(
        'Creates the model new_name with the configuration, tokenizer, weights, optimizer state and step '
        'of another, but without its data, runs and checkpoints. optimizer false: without optimizer '
        'state, at step 0. Returns the number of llm_param rows. 42710: new_name exists; 42704: unknown '
        'model.'
    ),
)
llm_rename_model = rename_model = SqlFunction(
    'llm_rename_model',
    (
        'model text, new_name text',
        'void',
    ),
    doc=(
        'Renames the model in every relation: weights, tokenizer, data, runs, log, tape, checkpoints. '
        'Checkpoint files keep the name under which they were saved. 42704: unknown model; 42710: the new '
        'name is taken; 55P03: another session is changing one of the two.'
    ),
)
llm_default_model = default_model = SqlFunction(
    'llm_default_model',
    (
        'model text?',
        'text',
    ),
    doc=(
        'The model to use when none is named: the setting pg_llm.default_model, else the only model with '
        'weights, else gpt2-small. A given model is returned unchanged. 22023, with their names: several '
        'other models have weights.'
    ),
)
llm_parameters = parameters = RowsFunction(
    'llm_parameters',
    (
        'model text',
        '(name text, shape integer[], init text, std double precision)',
    ),
    doc=(
        'Name, shape and initialisation of every parameter of the model, from the function that its '
        'architecture names in llm_arch; of an adapter, its factors. init: normal or residual with '
        'standard deviation std, uniform between -std and std, zeros, ones.'
    ),
)
llm_write_cost = write_cost = RowsFunction(
    'llm_write_cost',
    (
        'model text, task text?, write_backs integer?, n_steps bigint?, optimizer text?, keep_grad '
        'boolean?, dtype text?',
        '(part text, times bigint, heap_bytes bigint, toast_bytes bigint, index_bytes bigint, wal_bytes '
        'bigint, wal_bytes_max bigint, dead_bytes bigint)',
    ),
    doc=(
        'What a task writes for the model, in bytes, before it does: training, finetuning (a copy first), '
        'initialising, importing, loading (a checkpoint) or copying. A row for each part, of which there '
        'are so many times, and their total. heap_bytes, toast_bytes and index_bytes are written to '
        'llm_param, which grows by them at most: by less where vacuum has made room, and to two versions '
        'in all if it runs between write-backs. wal_bytes is the WAL of it, wal_bytes_max with an image '
        'of each page that was not changed since the last checkpoint, dead_bytes what vacuum can free '
        'afterwards. Upper bounds, at most 5 percent and 1 MB a time above what is measured. n_steps adds '
        'the log of a run; optimizer drop: the last write-back, a copy or a checkpoint is without '
        'moments; keep_grad as in llm_train; dtype bf16: what is imported or loaded is stored as that '
        '(what is trained never is). The rows that llm_finetune makes of its query are not included. '
        '42704: unknown model; 22023: an argument out of range.'
    ),
)

# ---- the forward pass ----

llm_forward = forward = SqlFunction(
    'llm_forward',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [T, vocab], or [B, T, vocab] for a batch [B, T] of sequences. With targets, the mean loss '
        'over the targets that are not below 0, a single number. last_only: logits of the last position '
        'only. Dropout applies only with training.'
    ),
)
llm_forward_gpt2 = forward_gpt2 = SqlFunction(
    'llm_forward_gpt2',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only '
        'the logits of the last position, [..., 1, V]. GPT-2: pre-LayerNorm blocks, learned positions, '
        'tanh GELU, tied head (Radford et al. 2019).'
    ),
)
llm_forward_gpt3 = forward_gpt3 = SqlFunction(
    'llm_forward_gpt3',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only '
        "the logits of the last position, [..., 1, V]. GPT-3: GPT-2's graph; with the setting band, odd "
        'layers see a band of tokens (Brown et al. 2020).'
    ),
)
llm_forward_microgpt = forward_microgpt = SqlFunction(
    'llm_forward_microgpt',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only '
        'the logits of the last position, [..., 1, V]. microgpt: RMSNorm without gains, ReLU, no biases, '
        'head of its own (Karpathy 2026).'
    ),
)
llm_forward_llama = forward_llama = SqlFunction(
    'llm_forward_llama',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only '
        'the logits of the last position, [..., 1, V]. Llama and its kin: rotary positions, RMSNorm, '
        'grouped heads, gated MLP (Touvron et al. 2023).'
    ),
)
llm_forward_neox = forward_neox = SqlFunction(
    'llm_forward_neox',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only '
        'the logits of the last position, [..., 1, V]. GPT-NeoX, Pythia: attention beside the MLP, rotary '
        'positions, LayerNorm (Black et al. 2022).'
    ),
)
llm_forward_opt = forward_opt = SqlFunction(
    'llm_forward_opt',
    (
        'model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double '
        'precision?, last_only boolean?',
        'tensor',
    ),
    doc=(
        'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only '
        "the logits of the last position, [..., 1, V]. OPT: GPT-2's blocks with ReLU; with norms after "
        'the sums its 350m (Zhang et al. 2022).'
    ),
)
llm_logits = logits = SqlFunction(
    'llm_logits',
    (
        'tokens integer[], model text?, n_layer integer?, n_head integer?, d_model integer?, vocab_size '
        'integer?',
        'tensor',
    ),
    doc=(
        'Logits [T, vocab] after each of the tokens, or [B, T, vocab] for a batch. Without a model, the '
        'default model. Sizes are checked against the configuration (22023).'
    ),
)
llm_loss = loss = SqlFunction(
    'llm_loss',
    (
        'model text, tokens integer[], targets integer[]',
        'double precision',
    ),
    (
        'model text, tokens integer[], targets integer[], n_layer integer, n_head integer, d integer, '
        'vocab integer, dropout_p double precision?, training boolean?',
        'double precision',
    ),
    doc=(
        'Mean negative log-likelihood in nats of targets [T] or [B, T] given tokens of the same shape, '
        "without dropout; targets below 0 are not counted. Of an encoder's pairs: llm_contrastive_loss. "
        "22023: shapes or length; 22003: a token outside the vocabulary.\n\nThe loss with the model's sizes "
        'as arguments, which are checked against its configuration (22023). training: with dropout of '
        "probability dropout_p, with the random keys of the model's next training step with seed 0."
    ),
)
llm_weight = weight = SqlFunction(
    'llm_weight',
    (
        'model text, name text',
        'tensor',
    ),
    doc=(
        "A parameter of the model as one tensor, a view of the session's memory. All calls in a statement "
        'use one version of the weights. 42704: the model has no such parameter.'
    ),
)
llm_hidden = hidden = SqlFunction(
    'llm_hidden',
    (
        'model text, tokens integer[], layer integer?',
        'tensor',
    ),
    doc=(
        'Hidden states [T, d_model] of tokens, or [B, T, d_model] for a batch. layer: 0 after the '
        'embeddings, k after the k-th block; negative values count from the end; the last (the default) '
        "is after the final norm, where logits are computed from. The same as transformers' "
        'hidden_states. 22023: the model has no such layer.'
    ),
)
llm_embed_text = embed_text = SqlFunction(
    'llm_embed_text',
    (
        'text text, model text?, layer integer?, pooling text?',
        'tensor',
    ),
    doc=(
        'Hidden states of the text in a layer of the model (as for llm_hidden; NULL: the last), pooled. '
        "pooling: mean [d_model], last (the last token's, [d_model]), or none [T, d_model]. A text longer "
        "than the context is read in windows that overlap by half; each token's state is from the window "
        'that gives it the most context. For an empty text the state of the begin-of-text token is used '
        '(22023 if there is none). All calls in a statement use one version of the weights. 22023: '
        'pooling or layer; 42704: unknown model.'
    ),
)
llm_perplexity = perplexity = SqlFunction(
    'llm_perplexity',
    (
        'model text, text text, stride integer?',
        'double precision',
    ),
    doc=(
        'Perplexity of the text under the model: the exponential of the mean negative log-likelihood of '
        'its tokens. The first token is predicted from the begin-of-text token if the tokenizer has one. '
        'A text longer than the context is read in windows that start stride tokens apart (default: half '
        'the context); each token counts once. All calls in a statement use one version of the weights.'
    ),
)
llm_evaluate = evaluate = RowsFunction(
    'llm_evaluate',
    (
        'model text, split text?, stride integer?, query text?',
        '(tokens bigint, nll double precision, perplexity double precision)',
    ),
    doc=(
        'Returns the number of tokens predicted, their mean negative log-likelihood in nats, and its '
        'exponential, the perplexity. Evaluates the rows of the split that belong to the model or to any '
        "model, or instead the documents in the query's first column, each after the begin-of-text token "
        'if there is one. With a stride, and for documents, a text longer than the context is read in '
        "windows of the context's length that start stride tokens apart (for documents by default half "
        'the context); each token counts once, in the window that gives it the most context. Writes '
        'nothing. P0002: no rows; 22023: a row longer than the context without a stride; 22003: a token '
        'outside the vocabulary.'
    ),
)
llm_log_evaluation = log_evaluation = RowsFunction(
    'llm_log_evaluation',
    (
        'model text, split text?, stride integer?',
        '(step bigint, tokens bigint, nll double precision, perplexity double precision)',
    ),
    doc=(
        'llm_evaluate(model, split, stride), whose result it also stores in llm_eval_log with the number '
        'of steps that the weights have taken: called between two calls of training, it measures held-out '
        'loss over time. 40001: the model was trained meanwhile; otherwise as for llm_evaluate.'
    ),
)
llm_elements = elements = SqlFunction(
    'llm_elements',
    (
        'shape integer[]',
        'bigint',
    ),
    doc=(
        'Number of elements of a tensor of this shape. 22003: more than a bigint can count.'
    ),
)

# ---- embeddings ----

llm_embed = embed = SqlFunction(
    'llm_embed',
    (
        'text text, model text?, prompt text?',
        'tensor',
    ),
    (
        'texts text[], model text?, prompt text?',
        'tensor[]',
    ),
    doc=(
        "The embedding of the text, as the model's settings say: pooled, of length 1 if normalize says "
        'so, cut to max_tokens tokens with a NOTICE. prompt: the name of one of its prompts, which is put '
        "before the text (NULL: its default_prompt, '': none). Of a decoder: what llm_embed_text returns. "
        'NULL for NULL. Writes nothing. All calls in a statement use one version of the weights. 22023: '
        'no such prompt; 42704: unknown model, or one without a tokenizer.\n\nThe embedding of each of the '
        'texts, in their order, each identical to what a separate call returns, NULL for NULL. Several '
        'dimensions become one.'
    ),
)
llm_embed_missing = embed_missing = Procedure(
    'llm_embed_missing',
    (
        'relation regclass, text_column text, embedding_column text, model text?, prompt text?, '
        'batch_rows integer?',
        'void',
    ),
    doc=(
        'Fills the column of embeddings, of type tensor, real[] or vector, in all rows of a table that '
        'have a text and no embedding: llm_embed(text, model, prompt) of each. Commits after batch_rows '
        'rows, so that after an error or a crash a further call goes on with the rows that are left. '
        'Several sessions may do it at once: each locks the rows it is at and passes over those that '
        'others have locked. Takes the rights of the caller: SELECT and UPDATE on the table. Call it '
        'outside a transaction block (2D000 otherwise). 42809: a view, a foreign or a system table; '
        '42703: no such column; 42804: a column of another type; 22023: batch_rows, prompt; 42704: '
        'unknown model.'
    ),
)
llm_embed_sequences = embed_sequences = SqlFunction(
    'llm_embed_sequences',
    (
        'model text, tokens integer[], lengths integer[], training boolean?, dropout_p double precision?',
        'tensor',
    ),
    doc=(
        "An encoder's embeddings [B, D] of B sequences of tokens that are laid end to end: lengths has "
        'the number of tokens of each. 0A000: the model is no encoder; 22023: lengths that are not those '
        'of the tokens; 22003: a token outside the vocabulary, or a sequence longer than the context.'
    ),
)

# ---- training ----

llm_train = train = SqlFunction(
    'llm_train',
    (
        'model text, n_steps integer, n_layer integer?, n_head integer?, d integer?, vocab integer?, '
        'dropout_p double precision?, beta1 double precision?, beta2 double precision?, eps double '
        'precision?, wd double precision?, lr_max double precision?, warmup integer?, grad_clip double '
        'precision?, grad_workers integer?, prune_workers integer?, batch_size integer?, grad_accum '
        'integer?, block_size integer?, schedule text?, min_lr double precision?, decay text?, seed '
        'bigint?, data_order text?, start_step bigint?, total_steps bigint?, log_every integer?, '
        'keep_grad boolean?, optimizer text?',
        'bigint',
    ),
    doc=(
        'Trains the model for n_steps optimizer steps (AdamW) on the train rows of llm_dataset, in one '
        'transaction, and returns the id of the run. llm_train_log gets a row per step; all of it or '
        'nothing is kept. Calls with the same seed, start_step and total_steps together do what one call '
        'would do. Loss and gradient of a step are means over all target tokens of its batches, however '
        'the tokens are divided; the gradient of each batch is computed separately and added in their '
        'order. A run uses the rows that exist when it begins. dropout_p: probability of dropout at '
        "embeddings, attention weights and residuals. beta1: AdamW's decay rate of the first moment. "
        "beta2: AdamW's decay rate of the second moment. eps: added to the denominator of AdamW's update. "
        "wd: AdamW's decoupled weight decay. lr_max: highest learning rate. warmup: steps of linear "
        'warm-up to the highest rate; default: 2000, or a tenth of a run that is not longer. grad_clip: '
        'clip gradients to this global norm. grad_workers: threads for the write-back; 0: pg_llm.threads. '
        'prune_workers: threads for clearing; 0: pg_llm.threads. batch_size: rows per batch. grad_accum: '
        'batches per step, whose gradients are added. block_size: how many tokens of a row to use; '
        'default: all. schedule: learning rate after the warm-up: cosine, linear or constant. min_lr: '
        "learning rate at the schedule's end. decay: parameters that weight decay applies to: all or "
        'matrices. seed: seed of batches and dropout. data_order: order of the rows: shuffled (a seeded '
        "permutation per epoch) or by_id. start_step: the model's step at which the schedule begins; "
        "default: this call's. total_steps: length of the schedule, in steps; default: this call's. "
        "log_every: steps between NOTICEs; 0: none. keep_grad: store the last step's gradients in "
        "llm_param.grad. optimizer: keep AdamW's moments, or drop them from the last write-back, which "
        'then stores data only. 55P03: another session trains the model; 55000: a run of it has logged '
        'steps whose weights are not stored, to be resumed or given up (llm_train_give_up); 40001: its '
        'weights or data were changed meanwhile; 22023: invalid arguments; 22003: the loss is not finite; '
        'P0002: no data, or a step without any target; 53200, 53100: it does not fit in memory or on '
        'disk.'
    ),
)
llm_train_loop = train_loop = Procedure(
    'llm_train_loop',
    (
        'model text, n_steps integer, commit_every integer?, write_back_every integer?, n_layer integer?, '
        'n_head integer?, d integer?, vocab integer?, dropout_p double precision?, beta1 double '
        'precision?, beta2 double precision?, eps double precision?, wd double precision?, lr_max double '
        'precision?, warmup integer?, grad_clip double precision?, grad_workers integer?, prune_workers '
        'integer?, batch_size integer?, grad_accum integer?, block_size integer?, schedule text?, min_lr '
        'double precision?, decay text?, seed bigint?, data_order text?, start_step bigint?, total_steps '
        'bigint?, log_every integer?, keep_grad boolean?, optimizer text?',
        'void',
    ),
    doc=(
        'Like llm_train, with bit-identical results, but commits as it goes. The log is committed every '
        'commit_every steps (NULL: about once a second), the weights are written back every '
        'write_back_every steps (NULL: when that costs at most 5% of the time) and at the end. Others see '
        'the log at once and the weights as they were last written; after a crash or an error '
        'llm_train_resume(run_id) computes the logged steps again and goes on. llm_train_stop(run_id) '
        'ends it with its weights stored. llm_train_run has the id of the run. Call it outside a '
        'transaction block (2D000 otherwise). 55000: an earlier run has logged steps whose weights are '
        'not stored: llm_train_resume continues it, llm_train_give_up gives them up. 40001: the weights, '
        'or the dataset rows that existed when the run began, were changed; rows added later do not join '
        'the run. Weights that only moved (VACUUM FULL, CLUSTER) count as unchanged.'
    ),
)
llm_train_resume = train_resume = Procedure(
    'llm_train_resume',
    (
        'run_id bigint, commit_every integer?, write_back_every integer?, on_mismatch text?',
        'void',
    ),
    doc=(
        'Continues an interrupted run of llm_train_loop to its planned end, with the same batches, '
        'schedule and dropout, so the result is bit-identical to an uninterrupted run. Steps that are '
        'logged and whose weights are not stored are computed again: their batches, losses and gradient '
        'norms must be those of the log to the bit. commit_every, write_back_every: as for '
        'llm_train_loop; NULL: as the run began. on_mismatch: error, or rewind: give up the logged steps '
        'that are not stored (they are superseded) and go on from the stored weights, with the data and '
        'the library as they are now. 40001, naming step and rows: weights, data or log have changed '
        'since; 55000: another library whose self-test fails, other numerical rules, or steps of another '
        'run that are logged and not stored; 22023: the run is complete. An error marks the run as failed '
        'in llm_train_run; it can be resumed again. Call it outside a transaction block.'
    ),
)
llm_train_stop = train_stop = SqlFunction(
    'llm_train_stop',
    (
        'run_id bigint',
        'boolean',
    ),
    doc=(
        'Asks the session that runs llm_train_loop or llm_train_resume for this run to write its weights '
        'back and end after the present step, with status stopped; llm_train_resume can continue it. '
        'Returns at once: true, or false with a NOTICE where no session runs it. 42704: unknown run; '
        '42501: the caller neither has the rights of the role that trains nor may update llm_train_run.'
    ),
)
llm_train_give_up = train_give_up = SqlFunction(
    'llm_train_give_up',
    (
        'run_id bigint',
        'bigint',
    ),
    doc=(
        'Gives up the logged steps of a run whose weights are not stored: they stay in llm_train_log as '
        'superseded, and training goes on from the stored weights, by a new run or by llm_train_resume. '
        'Returns the number of steps. 42704: unknown run; 55P03: a session trains or changes the model.'
    ),
)
llm_replay = replay = RowsFunction(
    'llm_replay',
    (
        'run_id bigint, first bigint?, last bigint?',
        '(step bigint, loss double precision, replayed_loss double precision, same boolean)',
    ),
    doc=(
        'Computes steps first to last of a run again (NULL: from its first, to its last logged one) and '
        'compares them with llm_train_log: the logged loss, the one that came out, and whether loss, '
        'gradient norm and batch are the same to the bit. It begins with the newest checkpoint below '
        'first that has the optimizer state, else with the initialisation by its seed, and computes the '
        'steps up to first without returning them. Writes nothing, so that it runs on replicas, too. '
        'Requires llm_trainer. P0002: neither is there; the message names the earliest step that can be '
        'replayed; 40001, naming them: rows of llm_dataset have changed since; 42704: unknown run; 22023: '
        'steps that the run did not log.'
    ),
)
llm_finetune = finetune = RowsFunction(
    'llm_finetune',
    (
        'model text, query text, steps integer, new_name text?, block_size integer?, stride integer?, '
        'validation double precision?, batch_size integer?, grad_accum integer?, lr_max double '
        'precision?, warmup integer?, schedule text?, min_lr double precision?, dropout_p double '
        'precision?, wd double precision?, grad_clip double precision?, decay text?, seed bigint?, '
        'log_every integer?, beta1 double precision?, beta2 double precision?, eps double precision?, '
        'grad_workers integer?, prune_workers integer?, data_order text?, start_step bigint?, total_steps '
        'bigint?, keep_grad boolean?, optimizer text?',
        '(name text, perplexity_before double precision, perplexity_after double precision)',
    ),
    doc=(
        "Copies the model as new_name (default: model-finetuned), tokenizes the documents in the query's "
        'first column into rows of block_size tokens (default: the context), holds out the fraction '
        'validation of them, and trains the copy for steps steps with fresh optimizer state. Returns its '
        'name and its perplexity on the held-out rows before and after. The original model does not '
        'change. The other arguments are those of llm_fill_dataset and llm_train. Runs in one '
        'transaction.'
    ),
)
llm_train_step = train_step = SqlFunction(
    'llm_train_step',
    (
        'model text, batch_id bigint, n_layer integer?, n_head integer?, d integer?, vocab integer?, '
        'dropout_p double precision?, beta1 double precision?, beta2 double precision?, eps double '
        'precision?, wd double precision?, lr_max double precision?, warmup integer?, total_steps '
        'bigint?, grad_clip double precision?, grad_workers integer?, prune_workers integer?',
        'double precision',
    ),
    doc=(
        'One training step on the llm_dataset row batch_id, stored before it returns; the loss before the '
        "step. The rate is that of the model's next step in a cosine schedule of warmup and total_steps "
        "steps counted from the model's first; without total_steps it stays at lr_max after the warm-up. "
        'Dropout is keyed with seed 0. The same bits by hand:\n  SELECT llm_materialize_params(:model);\n  '
        'UPDATE llm_autograd_mode SET flag = true;\n  SELECT llm_loss(:model, tokens, target, NULL, NULL, '
        'NULL, NULL, :dropout_p, true)\n    FROM llm_dataset WHERE id = :batch_id;\n  UPDATE '
        'llm_autograd_mode SET flag = false;\n  SELECT llm_backprop(NULL, :model);\n  SELECT '
        'llm_accumulate_grads(:model);\n  UPDATE llm_param SET (data, m, v) = (\n      SELECT s.new_weight, '
        's.new_m, s.new_v FROM pg_llm_adamw_step(data, grad, m, v,\n        pg_llm_lr_schedule(step + 1, '
        ':warmup, :total_steps, :lr_max), :beta1, :beta2, :eps, :wd, step + 1) s),\n    step = step + 1 '
        'WHERE model = :model;\n  SELECT llm_prune_autograd_state();'
    ),
)
llm_materialize_params = materialize_params = SqlFunction(
    'llm_materialize_params',
    (
        'model text',
        'integer',
    ),
    doc=(
        "The first step of training by hand: reads the model's weights and optimizer state into this "
        "session's memory and starts with zero gradients and an empty tape. Returns the number of "
        'llm_param rows. Also stores the parameters by name in llm_tensor with their parts joined (those '
        'below 1 GB), unless pg_llm.record is off, the transaction is read-only, or the role may not '
        'write there. llm_tensor_map shows their ids after a pass was recorded.'
    ),
)
llm_backprop = backprop = SqlFunction(
    'llm_backprop',
    (
        'start_id bigint?, model text?',
        'bigint',
    ),
    doc=(
        'Computes the gradients of the recorded pass by reverse-mode differentiation from start_id, the '
        "tape id of a single number (NULL: the newest op). Gradients of parameters stay in this session's "
        'memory for llm_accumulate_grads; pg_llm_grad(tensor) returns those of tracked tensors. Returns '
        'the number of ops.'
    ),
)
llm_accumulate_grads = accumulate_grads = SqlFunction(
    'llm_accumulate_grads',
    (
        'model text, workers integer?',
        'integer',
    ),
    doc=(
        "Stores the gradients that this session's backward passes have summed in llm_param.grad (NULL for "
        'parameters without one) and returns the number of rows. workers: threads, 0 for pg_llm.threads. '
        '55P03: another session trains the model; 40001: another transaction changed its weights '
        'meanwhile; 42501: a policy or a trigger prevents some of the rows from being written.'
    ),
)
llm_prune_autograd_state = prune_autograd_state = SqlFunction(
    'llm_prune_autograd_state',
    (
        'workers integer?',
        'bigint',
    ),
    doc=(
        "The last step of training by hand: frees the tape in this session's memory with its tensors, "
        'removes its rows from llm_tape, llm_tensor_rt and llm_tensor_map (unless pg_llm.tape_keep = '
        'all), and returns the number of its ops. llm_prune_runs removes what training runs recorded.'
    ),
)
llm_tape_flush = tape_flush = SqlFunction(
    'llm_tape_flush',
    (
        'run bigint?, model text?, step bigint?',
        'bigint',
    ),
    doc=(
        "Writes the pass in this session's memory to llm_tape, llm_tensor_rt and llm_tensor_map and "
        'returns the number of new tape rows. Called again after the backward pass, it adds the norms of '
        "the gradients. With pg_llm.tape_keep = last, the model's earlier passes are removed. Writes "
        'nothing if pg_llm.record is off, tape_keep is none, the transaction is read-only, or the role '
        'has no INSERT privilege on llm_tape.'
    ),
)
llm_prune_runs = prune_runs = RowsFunction(
    'llm_prune_runs',
    (
        'model text?, keep integer?',
        '(runs bigint, passes bigint)',
    ),
    doc=(
        'Removes all but the newest keep ended runs of the model (NULL: of each model), with their log, '
        'clippings and recorded passes. Returns the numbers of runs and passes removed. Weights and '
        'checkpoints are kept. A removed run cannot be resumed.'
    ),
)
llm_contrastive_loss = contrastive_loss = SqlFunction(
    'llm_contrastive_loss',
    (
        'model text, tokens integer[], targets integer[], training boolean?, dropout_p double precision?',
        'tensor',
    ),
    doc=(
        'The contrastive loss of a batch of pairs, 0-d: tokens [T] or [B, T] hold in each row an anchor, '
        'its positive and any hard negatives, and targets number these sequences: 0, 1, 2 and on, below 0 '
        'for padding. The mean over the rows of -log softmax of (anchor . candidate) / temperature at the '
        "row's own positive; the candidates are the positives and negatives of all rows (multiple "
        'negatives ranking, Henderson et al. 2017; InfoNCE, van den Oord et al. 2018), without those that '
        'are the same text as the own positive or another positive of the same anchor. temperature is the '
        "model's setting, 0.05 where it has none. 22023, naming the row: no anchor or positive, a gap in "
        'the numbers, a sequence longer than the model takes; a single pair without negatives.'
    ),
)
llm_recall = recall = RowsFunction(
    'llm_recall',
    (
        'model text, split text?, k integer?',
        '(pairs bigint, candidates bigint, recall double precision)',
    ),
    doc=(
        "Of the split's different pairs, the share whose positive is among the k of all the split's "
        'positives (candidates) that are nearest to the anchor, by dot product (the cosine, where the '
        'model normalises). A text that occurs several times is one candidate, other positives of the '
        'same anchor do not count against a pair, and equal similarity does: a model that makes one '
        'vector of everything has recall 0. Writes nothing. P0002: no rows; 0A000: the model is no '
        'encoder; 22023: k is below 1 or not below the number of candidates, or a row is no pair.'
    ),
)

# ---- tokenizers and data ----

llm_encode = encode = SqlFunction(
    'llm_encode',
    (
        'text text, model text?, special boolean?, bos boolean?',
        'integer[]',
    ),
    doc=(
        "Token ids of the text under the model's tokenizer, without begin or end tokens; bos puts the "
        'begin-of-text token in front (llm_begin_token; 22023 if there is none). Added tokens are '
        "recognised in the text as in Hugging Face's tokenizers, but special ones such as <|endoftext|> "
        'only with special => true: else they are text like any other. 22021: a character that the '
        'tokenizer does not know; 42704: the model has no tokenizer.'
    ),
)
llm_encode_sequence = encode_sequence = SqlFunction(
    'llm_encode_sequence',
    (
        'text text, model text?, max_tokens integer?',
        'integer[]',
    ),
    doc=(
        "Token ids of the text as a model reads it, as Hugging Face's tokenizer(text, truncation=True) "
        "gives them: special tokens in the text recognised, the tokens of the tokenizer's template around "
        'it ([CLS] and [SEP] of BERT), cut to max_tokens in all. 22023: max_tokens has no room for the '
        'template; 42704: the model has no tokenizer.'
    ),
)
llm_decode = decode = SqlFunction(
    'llm_decode',
    (
        'ids integer[], model text?',
        'text',
    ),
    doc=(
        "The text of token ids under the model's tokenizer, of WordPiece as its decoder in Hugging Face's "
        'tokenizers gives it. BOS has no text. U+FFFD replaces bytes that are not valid UTF-8, and NUL, '
        'which a text cannot contain; llm_token_bytes returns the bytes themselves. 22003: an unknown '
        'token; 42704: the model has no tokenizer.'
    ),
)
llm_build_char_tokenizer = build_char_tokenizer = SqlFunction(
    'llm_build_char_tokenizer',
    (
        'model text, query text',
        'integer',
    ),
    doc=(
        "Replaces the model's tokenizer with one token for each character in the query's first column, "
        'with ids in code point order, and BOS, whose id is the number of characters. Returns the size of '
        'the vocabulary, BOS included. 22023: an existing model has another vocab; P0002: the query '
        'returned no text.'
    ),
)
llm_load_bpe = load_bpe = SqlFunction(
    'llm_load_bpe',
    (
        'model text, vocab bytea, merges bytea?, added jsonb?, settings jsonb?',
        'integer',
    ),
    (
        'model text, vocab text, merges text?',
        'integer',
    ),
    doc=(
        "Replaces the model's tokenizer with the contents of vocab.json and merges.txt (or encoder.json "
        'and vocab.bpe), or of a .tiktoken file alone, and checks that they match. added: added tokens '
        'and the tokens that begin and end a text, as for llm_add_tokens; NULL: tokens of the form '
        '<|...|> are special and <|endoftext|> ends a text. settings: pre_tokenizer (gpt2, smollm, '
        'llama3, qwen2, o200k, tekken: how a text is cut into pieces), normalizer (null, nfc), '
        'ignore_merges (false), drop_unknown (false: a byte without a token is 22021), prefix and suffix '
        "(arrays of the ids around a text); NULL: GPT-2's. Returns the number of tokens. Reads no file on "
        'the server. 22023, with the line: contents that are not such a file, or settings that do not '
        "exist; 0A000: the database's encoding lacks the byte-level alphabet.\n\nLike llm_load_bpe(text, "
        'bytea, bytea, jsonb, jsonb), from texts.'
    ),
)
llm_load_wordpiece = load_wordpiece = SqlFunction(
    'llm_load_wordpiece',
    (
        'model text, vocab bytea, settings jsonb?, added jsonb?',
        'integer',
    ),
    (
        'model text, vocab text, settings jsonb?, added jsonb?',
        'integer',
    ),
    doc=(
        "Replaces the model's tokenizer with WordPiece, BERT's, of the contents of vocab.txt, one token "
        'in each line, or of a JSON object of token to id. settings: lowercase (true), strip_accents '
        '(null: as lowercase), handle_chinese_chars (true), clean_text (true), unk_token ([UNK]), '
        'continuing_subword_prefix (##), max_input_chars_per_word (100), cleanup (true: llm_decode leaves '
        'out blanks before punctuation), template (prefix and suffix, arrays of the ids around a text; '
        'left out, [CLS] and [SEP] if the vocabulary has both). added: added tokens as for '
        'llm_add_tokens; NULL: [PAD], [UNK], [CLS], [SEP] and [MASK] are special. Returns the number of '
        'tokens. 22023: contents that are not such a vocabulary, with the line, one without unk_token, or '
        "settings that do not exist; 0A000: the database's encoding cannot hold the tokens.\n\nLike "
        'llm_load_wordpiece(text, bytea, jsonb, jsonb), from a text.'
    ),
)
llm_load_sentencepiece = load_sentencepiece = SqlFunction(
    'llm_load_sentencepiece',
    (
        'model text, vocab jsonb, merges jsonb, settings jsonb?, added jsonb?',
        'integer',
    ),
    doc=(
        "Replaces the model's tokenizer with SentencePiece's BPE, that of Llama 2, TinyLlama, Mistral and "
        'Gemma. vocab is an object of token to id, merges an array of pairs of tokens, the first to merge '
        'in front, as in tokenizer.json. settings: prefix_space (prepend: a blank is put before every '
        'text; always: where none stands; first: before a text, not behind an added token; never), split '
        '(false; true: nothing merges across a blank), strip (true: llm_decode leaves out the first '
        'blank), prefix and suffix (arrays of the ids around a text). added: added tokens as for '
        'llm_add_tokens; NULL: <unk>, <s> and </s> are special, <s> begins and </s> ends a text. Returns '
        'the number of tokens. 22023: contents that are not such a vocabulary, or settings that do not '
        "exist; 0A000: the database's encoding lacks U+2581."
    ),
)
llm_prefix_tokens = prefix_tokens = SqlFunction(
    'llm_prefix_tokens',
    (
        'model text',
        'integer[]',
    ),
    doc=(
        "The ids of the tokens that the model's tokenizer puts before a text, such as Llama's "
        '<|begin_of_text|>; empty if there are none.'
    ),
)
llm_token_bytes = token_bytes = SqlFunction(
    'llm_token_bytes',
    (
        'ids integer[], model text',
        'bytea',
    ),
    doc=(
        'The bytes of the tokens, concatenated. 22003: an unknown token.'
    ),
)
llm_end_token = end_token = SqlFunction(
    'llm_end_token',
    (
        'model text',
        'integer',
    ),
    doc=(
        'The id of the token that ends a document: the one with the flag eos in llm_bpe_vocab, else '
        '<|endoftext|>, else BOS; NULL if there is none.'
    ),
)
llm_begin_token = begin_token = SqlFunction(
    'llm_begin_token',
    (
        'model text',
        'integer',
    ),
    doc=(
        'The id of the token that begins a document: the one with the flag bos in llm_bpe_vocab, else the '
        'one that ends a document; NULL if there is none.'
    ),
)
llm_end_tokens = end_tokens = SqlFunction(
    'llm_end_tokens',
    (
        'model text',
        'integer[]',
    ),
    doc=(
        'The ids of the tokens that end a generation: those with the flags eos (first) or stop in '
        'llm_bpe_vocab; if no token has these flags, <|endoftext|>, else <|bos|>. Empty if there is none.'
    ),
)
pg_llm_load_bpe_vocab = load_bpe_vocab = SqlFunction(
    'pg_llm_load_bpe_vocab',
    (
        'path text, model text',
        'integer',
    ),
    doc=(
        "Replaces the model's tokens with those of a file on the server: vocab.json, encoder.json, or "
        '.tiktoken, which also contains the merges. Returns the number of tokens. For roles with the '
        'privileges of pg_read_server_files. 58P01: no such file; 22023, with the line: not one of these '
        'formats.'
    ),
)
pg_llm_load_bpe_merges = load_bpe_merges = SqlFunction(
    'pg_llm_load_bpe_merges',
    (
        'path text, model text',
        'integer',
    ),
    doc=(
        "Replaces the model's merge rules with those of a file on the server, merges.txt or vocab.bpe. "
        'Returns the number of rules. For roles with the privileges of pg_read_server_files. 58P01: no '
        'such file; 22023, with the line: not one of these formats.'
    ),
)
llm_train_bpe = train_bpe = SqlFunction(
    'llm_train_bpe',
    (
        'model text, query text, vocab integer',
        'integer',
    ),
    doc=(
        "Replaces the model's tokenizer with byte pair encoding learned from the query's first column: "
        'the 256 bytes, merges of the most frequent pairs (ties go to the lowest ids; pairs that occur '
        'only once are not merged), and <|endoftext|>. Returns the size of the vocabulary, which is below '
        "vocab only if the text has no more pairs. 22023: an existing model's vocab is smaller; P0002: "
        'the query returned no text.'
    ),
)
llm_tokenizer_kind = tokenizer_kind = SqlFunction(
    'llm_tokenizer_kind',
    (
        'model text',
        'text',
    ),
    doc=(
        "char for a character tokenizer, bpe for byte-level BPE, sentencepiece for SentencePiece's BPE, "
        'wordpiece for WordPiece, NULL if the model has no tokenizer.'
    ),
)
llm_boundaries = boundaries = RowsFunction(
    'llm_boundaries',
    (
        'model text',
        '(first_ids integer[], between_ids integer[], last_ids integer[])',
    ),
    doc=(
        'The tokens before the first of joined documents, between two of them, and after the last: the '
        'tokens that end and begin a document, only one where they are the same, none where the tokenizer '
        'has none.'
    ),
)
llm_fill_dataset = fill_dataset = RowsFunction(
    'llm_fill_dataset',
    (
        'model text, query text, block_size integer?, stride integer?, validation double precision?, seed '
        'bigint?, keep_order boolean?',
        '(train_rows bigint, validation_rows bigint)',
    ),
    doc=(
        "Replaces the model's rows of llm_dataset with the documents in the query's first column and "
        'returns the number of rows per split. Duplicate documents count once. The fraction validation of '
        'the documents, drawn by seed, is held out; of a single document, its end. No held-out row equals '
        "a training row. keep_order: rows are in the query's order and duplicates are kept; validation is "
        'then a fraction of the distinct documents, and all copies of a document are held out or none. '
        "The tokenizer's begin and end tokens, if any, are put around documents. block_size: the "
        'documents of a split are joined and cut into rows of that many tokens that start stride tokens '
        'apart (default: block_size). Without it each document is a row, truncated to the context, and a '
        'NOTICE reports what was cut off.'
    ),
)
llm_fill_pairs = fill_pairs = RowsFunction(
    'llm_fill_pairs',
    (
        'model text, query text, split text?, validation double precision?, seed bigint?, anchor_prompt '
        'text?, positive_prompt text?, max_tokens integer?',
        '(pairs bigint, validation_pairs bigint)',
    ),
    doc=(
        "Replaces an encoder's rows of a split of llm_dataset with the pairs of a query: its first column "
        'is the anchor, its second the positive, further ones are hard negatives, of which NULL and empty '
        'ones are left out. Equal pairs count once; rows without an anchor or a positive are left out, '
        'which a NOTICE counts. The fraction validation of the pairs, drawn by seed, goes into split '
        'validation instead, whose rows are replaced then. A split other than train leaves out pairs that '
        'train has: fill train first. anchor_prompt, positive_prompt (which negatives have, too): names '
        "of prompts among the model's settings, put before the texts (NULL: its default_prompt, '': "
        'none). Texts are cut to max_tokens with the special tokens (default: what the model takes), '
        'which a NOTICE counts. Returns the numbers of pairs. P0002: there is none; 42804: the query has '
        'fewer than two columns; 0A000: the model is no encoder; 22023: it has no such prompt; 42704: it '
        'has no tokenizer.'
    ),
)

# ---- generation ----

llm_generate = generate = SqlFunction(
    'llm_generate',
    (
        'prompt text, max_tokens integer?, temperature double precision?, top_k integer?, top_p double '
        'precision?, model text?, seed bigint?, stop text[]?, echo boolean?, repetition_penalty double '
        'precision?, presence_penalty double precision?, frequency_penalty double precision?',
        'text',
    ),
    (
        'prompts text[], max_tokens integer?, temperature double precision?, top_k integer?, top_p double '
        'precision?, model text?, seed bigint?, stop text[]?, echo boolean?, repetition_penalty double '
        'precision?, presence_penalty double precision?, frequency_penalty double precision?',
        'text[]',
    ),
    doc=(
        'Generates text that continues the prompt; with echo, prompt and text. temperature 0: always the '
        'most likely token; top_k 0 and top_p 1: no limit; seed: the same seed gives the same text; stop: '
        'the text ends before any of these texts. It also ends at the end-of-text token. Of a prompt '
        'longer than the context only the last tokens are used; an empty prompt starts a document. '
        'repetition_penalty applies to the tokens of prompt and text (Keskar et al. 2019), '
        'presence_penalty and frequency_penalty to those of the text. Without a model, the default model: '
        'the setting pg_llm.default_model, else the only model with weights, else gpt2-small. Writes '
        'nothing. 22023: an argument is out of range.\n\nGenerates a text for each of the prompts, in their '
        'order, each identical to what a separate call with these arguments returns.'
    ),
)
llm_generate_stream = generate_stream = RowsFunction(
    'llm_generate_stream',
    (
        'prompt text, max_tokens integer?, temperature double precision?, top_k integer?, top_p double '
        'precision?, model text?, seed bigint?, stop text[]?, echo boolean?, repetition_penalty double '
        'precision?, presence_penalty double precision?, frequency_penalty double precision?',
        '(step integer, token_id integer, token text, text text, is_complete boolean)',
    ),
    doc=(
        'Like llm_generate, one row per token: the piece of text that it adds, and the text so far. A '
        'client that fetches through a cursor gets each row as soon as it is computed. The pieces '
        'concatenated are the text. The last row completes the text; if an end-of-text token ended it, '
        "the row is that token's. Writes nothing."
    ),
)
llm_beam_search = beam_search = RowsFunction(
    'llm_beam_search',
    (
        'prompt text, beam_width integer?, max_tokens integer?, model text?, length_penalty double '
        'precision?, early_stopping boolean?',
        '(rank integer, score double precision, text text, token_ids integer[])',
    ),
    doc=(
        'Returns the beam_width best continuations of at most max_tokens tokens, best first, as '
        "transformers' beam search without sampling finds them. score: the sum of the tokens' log "
        'probabilities divided by (number of tokens) ^ length_penalty (0: the sum itself); ties are '
        'broken by token ids. token_ids include a final end-of-text token; score counts it, text leaves '
        'it out. The search stops when no beam can improve on the finished continuations; with '
        'early_stopping, as soon as beam_width continuations are finished. Writes nothing. 22023: an '
        'argument is out of range.'
    ),
)
llm_release = release = SqlFunction(
    'llm_release',
    (
        'shared boolean?',
        'bigint',
    ),
    doc=(
        'Frees the memory in which this session keeps weights that it no longer uses; with shared => true '
        "also removes the files of this database's models that all sessions map, which the next use "
        'writes again. Returns the number of bytes. 42501: the role may not write the weights.'
    ),
)

# ---- conversations ----

llm_chat = chat = SqlFunction(
    'llm_chat',
    (
        'messages jsonb, model text?, max_tokens integer?, temperature double precision?, top_k integer?, '
        'top_p double precision?, seed bigint?, stop text[]?, echo boolean?, repetition_penalty double '
        'precision?, presence_penalty double precision?, frequency_penalty double precision?, overflow '
        'text?',
        'text',
    ),
    doc=(
        'Answers a conversation, [{"role": "system" | "user" | "assistant", "content": "a text"}, ...], '
        "by the model's own chat template. What a message says never becomes a special token of the "
        'tokenizer. The arguments are those of llm_generate; the answer also ends at the token with which '
        'the template ends one, and where the context is full. overflow: what happens when conversation '
        'and answer do not fit into the context: slide leaves out the oldest turns after the system '
        'message, so that max_tokens, or half of the context, are left for the answer; error refuses. A '
        'client that renders the template itself passes {"parts": [{"template": "..."} | {"content": '
        '"..."}, ...], "ending": "..."}. Writes nothing. 22023: an argument is out of range, messages '
        "have another form or do not fit; 0A000: only clients render the model's chat template; 42704: "
        'the model has none.'
    ),
)
llm_chat_stream = chat_stream = RowsFunction(
    'llm_chat_stream',
    (
        'messages jsonb, model text?, max_tokens integer?, temperature double precision?, top_k integer?, '
        'top_p double precision?, seed bigint?, stop text[]?, echo boolean?, repetition_penalty double '
        'precision?, presence_penalty double precision?, frequency_penalty double precision?, overflow '
        'text?',
        '(step integer, token_id integer, token text, text text, is_complete boolean)',
    ),
    doc=(
        'Like llm_chat, one row per token, as llm_generate_stream gives them: the piece of the answer '
        'that it adds, and the answer so far. Writes nothing.'
    ),
)
llm_chat_prompt = chat_prompt = RowsFunction(
    'llm_chat_prompt',
    (
        'messages jsonb, model text?',
        '(tokens integer[], text text)',
    ),
    doc=(
        "What the model sees of a conversation, as tokens and as text: transformers' apply_chat_template "
        "with add_generation_prompt, but no message's content becomes a special token. Errors as for "
        'llm_chat.'
    ),
)
llm_chat_template = chat_template = RowsFunction(
    'llm_chat_template',
    (
        'model text?',
        '(template text, format text, default_system text, bos text, eos text)',
    ),
    doc=(
        "The model's chat template; which of those that the server renders it is (NULL: another, which "
        'only clients render), the system message that it puts before a conversation without one, and the '
        'tokens that begin and end a text. 42704: the model has no chat template.'
    ),
)
llm_set_chat_template = set_chat_template = SqlFunction(
    'llm_set_chat_template',
    (
        'model text, template text',
        'void',
    ),
    doc=(
        'Gives the model a chat template, in Jinja as tokenizer_config.json has it; NULL: none. Loading a '
        'tokenizer removes it. 42704: the model has no tokenizer; 22023: it is empty.'
    ),
)

# ---- weights in and out ----

pg_llm_import_npz = import_npz = SqlFunction(
    'pg_llm_import_npz',
    (
        'path text, model text, megatron_version double precision?',
        'bigint',
    ),
    doc=(
        "Replaces the model's weights with those of a file on the server: .npz, or a gzip stream of "
        '(name, .npy) records, recognised by its contents. Tensor names are those of Hugging Face, '
        'nanoGPT or Megatron-LM (whose queries, keys and values need megatron_version: 1.0, or 2.0 and '
        'later). The model must be in llm_model_config; its step becomes 0 and its log rows are marked as '
        'superseded. Returns the number of weights. Requires pg_read_server_files. 22000: damaged file; '
        "22023: another model's file."
    ),
)
pg_llm_import_safetensors = import_safetensors = SqlFunction(
    'pg_llm_import_safetensors',
    (
        'path text, model text, megatron_version double precision?',
        'bigint',
    ),
    doc=(
        "Replaces the model's weights with those of a .safetensors file on the server; otherwise like "
        'pg_llm_import_npz.'
    ),
)
pg_llm_export_npz = export_npz = SqlFunction(
    'pg_llm_export_npz',
    (
        'path text, model text, gzip boolean?',
        'bigint',
    ),
    doc=(
        "Writes the model's weights to an .npz file on the server, or as a gzip stream of (name, .npy) "
        'records. Returns its size in bytes. An existing file is replaced atomically. Requires '
        'pg_write_server_files.'
    ),
)
pg_llm_export_safetensors = export_safetensors = SqlFunction(
    'pg_llm_export_safetensors',
    (
        'path text, model text',
        'bigint',
    ),
    doc=(
        "Writes the model's weights to a .safetensors file on the server that transformers can load: "
        'parameters that are stored as bf16 as BF16, others as F32; otherwise like pg_llm_export_npz.'
    ),
)
llm_checkpoint_save = checkpoint_save = SqlFunction(
    'llm_checkpoint_save',
    (
        'model text, note text?, keep integer?',
        'bigint',
    ),
    doc=(
        "Saves the model's parameters, optimizer state, step, configuration and tokenizer to a file in "
        "the checkpoint directory (pg_llm.checkpoint_dir) and returns the checkpoint's id. The file and "
        'its row appear together when the transaction commits, or not at all. keep: keep only this many '
        "of the model's newest checkpoints, and remove the older ones that the caller can see and delete. "
        'Requires llm_trainer. 25006: on a replica or in a read-only transaction; 53100: the disk is '
        'full.'
    ),
)
llm_checkpoint_load = checkpoint_load = SqlFunction(
    'llm_checkpoint_load',
    (
        'model text, id bigint',
        'bigint',
    ),
    doc=(
        'Restores the model to its state when the checkpoint was saved: parameters, optimizer state, '
        'step, configuration, tokenizer. Log rows of later steps are marked as superseded. Returns the '
        'step. The file is verified before anything is changed. Requires llm_trainer. 42704: unknown id; '
        "22023: another model's checkpoint; 22000: damaged file; 58P01: the file is not on this server; "
        '55P03: the model is being trained; 25006: on a replica or in a read-only transaction.'
    ),
)
llm_checkpoint_orphans = checkpoint_orphans = RowsFunction(
    'llm_checkpoint_orphans',
    (
        'remove boolean?',
        '(folder text, files bigint, bytes bigint)',
    ),
    doc=(
        'Folders that dropped databases left in the checkpoint directories, with the number and size of '
        'their files. remove: also deletes them, immediately and permanently. Superusers only.'
    ),
)
llm_checkpoint_sweep = checkpoint_sweep = SqlFunction(
    'llm_checkpoint_sweep',
    (
        '',
        'void',
    ),
    doc=(
        "When the transaction commits, removes this database's files in the checkpoint directories that "
        'no row of llm_checkpoint names and that no running transaction is writing. Rows that policies '
        'hide from the caller count, too. Requires llm_trainer.'
    ),
)
llm_publish = publish = SqlFunction(
    'llm_publish',
    (
        'model text',
        'text',
    ),
    doc=(
        'Makes a publication of the model for logical replication and returns its name: weights without '
        'gradients and optimizer state, configuration, tokenizer. Other databases get the model by CREATE '
        'SUBSCRIPTION and use it; see docs/operate/replication.md. Publishing it again brings the '
        'publication up to date. Dropping the model removes it from subscribers as well; the publication '
        'remains until llm_unpublish. Requires ownership of the tables and CREATE on the database '
        "(42501). 55000: wal_level is not logical, or a table's replica identity is not its primary key; "
        '42704: unknown model; 42710: another publication has the name.'
    ),
)
llm_unpublish = unpublish = SqlFunction(
    'llm_unpublish',
    (
        'model text',
        'void',
    ),
    doc=(
        'Drops the publication that llm_publish(model) made, also after the model itself. Subscribers '
        'keep the rows they have; drop their subscriptions first. 42704: the model is not published; '
        '42501: the publication belongs to another role; 42710: a publication of that name is not '
        "llm_publish's."
    ),
)
llm_publication = publication = SqlFunction(
    'llm_publication',
    (
        'model text',
        'text',
    ),
    doc=(
        "The name of the publication that llm_publish(model) makes: llm_model_ and the model's name, of a "
        'long name its beginning and a hash.'
    ),
)

FUNCTIONS = tuple(
    value for name, value in list(globals().items()) if name.startswith(("llm_", "pg_llm_"))
)
"""Every function of the catalogue."""
