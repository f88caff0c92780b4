"""The database's functions as SQLAlchemy expressions, for use inside any `select()`.

    select(functions.llm_generate("SELECT is", max_tokens=40, model="catalog-gpt"))
    select(Page.id, functions.llm_perplexity("catalog-gpt", Page.body)).order_by(...)
    select(functions.llm_evaluate("catalog-gpt").c.perplexity)

Arguments may be Python values or columns, by position or by name; what is not given takes the database's
default. Functions that return rows give something to select from. Each has a short name too:
`functions.generate`, `functions.import_npz`.
"""

from __future__ import annotations

from .sql_function import RowsFunction, SqlFunction

_SIZES = "n_layer integer?, n_head integer?, d_model integer?, n_positions integer?, vocab integer?"
_CHECKED = "n_layer integer?, n_head integer?, d integer?, vocab integer?"
_ADAMW = (
    "dropout_p double precision?, beta1 double precision?, beta2 double precision?, eps double precision?, "
    "wd double precision?, lr_max double precision?, warmup integer?"
)
_FORWARD = (
    "model text, tokens integer[], training boolean?, targets integer[]?, dropout_p double precision?, "
    "last_only boolean?"
)
_SAMPLING = (
    "max_tokens integer?, temperature double precision?, top_k integer?, top_p double precision?, "
    "model text?, seed bigint?, stop text[]?, echo boolean?, repetition_penalty double precision?, "
    "presence_penalty double precision?, frequency_penalty double precision?"
)

# ---- models ----

llm_create_model = create_model = SqlFunction(
    "llm_create_model",
    (f"model text, arch text?, {_SIZES}, seed bigint?", "bigint"),
    doc="Register a model and initialise its weights. Returns the number of weights.",
)
llm_init_model = init_model = SqlFunction(
    "llm_init_model",
    ("model text, seed bigint?", "bigint"),
    doc="Initialise a model's weights again, as its architecture defines. Returns the number of weights.",
)
llm_drop_model = drop_model = SqlFunction(
    "llm_drop_model",
    ("model text", "void"),
    doc="Remove a model with all that belongs to it.",
)
llm_copy_model = copy_model = SqlFunction(
    "llm_copy_model",
    ("model text, new_name text, optimizer boolean?", "bigint"),
    doc="Copy a model's configuration, tokenizer and weights. Returns the number of llm_param rows.",
)
llm_rename_model = rename_model = SqlFunction(
    "llm_rename_model",
    ("model text, new_name text", "void"),
    doc="Rename a model, with all that belongs to it.",
)
llm_default_model = default_model = SqlFunction(
    "llm_default_model",
    ("model text?", "text"),
    doc="The model used when none is named.",
)
llm_parameters = parameters = RowsFunction(
    "llm_parameters",
    ("model text", "(name text, shape integer[], init text, std double precision)"),
    doc="Name, shape and initialisation of every parameter of the model.",
)

# ---- the forward pass ----

llm_forward = forward = SqlFunction(
    "llm_forward",
    (_FORWARD, "tensor"),
    doc="Logits [..., T, V]; with targets their mean loss, 0-d; with last_only those of the last position.",
)
llm_forward_gpt2 = forward_gpt2 = SqlFunction(
    "llm_forward_gpt2", (_FORWARD, "tensor"), doc="As llm_forward, of the architecture gpt2."
)
llm_forward_gpt3 = forward_gpt3 = SqlFunction(
    "llm_forward_gpt3", (_FORWARD, "tensor"), doc="As llm_forward, of the architecture gpt3."
)
llm_forward_microgpt = forward_microgpt = SqlFunction(
    "llm_forward_microgpt", (_FORWARD, "tensor"), doc="As llm_forward, of the architecture microgpt."
)
llm_logits = logits = SqlFunction(
    "llm_logits",
    (
        "tokens integer[], model text?, n_layer integer?, n_head integer?, d_model integer?, "
        "vocab_size integer?",
        "tensor",
    ),
    doc="Logits [..., T, V] after each of the tokens.",
)
llm_loss = loss = SqlFunction(
    "llm_loss",
    ("model text, tokens integer[], targets integer[]", "double precision"),
    (
        "model text, tokens integer[], targets integer[], n_layer integer, n_head integer, d integer, "
        "vocab integer, dropout_p double precision?, training boolean?",
        "double precision",
    ),
    doc="Mean negative log-likelihood in nats per token, targets below 0 ignored; without sizes no dropout.",
)
llm_weight = weight = SqlFunction(
    "llm_weight",
    ("model text, name text", "tensor"),
    doc="A parameter of the model as one tensor.",
)
llm_hidden = hidden = SqlFunction(
    "llm_hidden",
    ("model text, tokens integer[], layer integer?", "tensor"),
    doc="Hidden states [..., T, d_model] after a layer; 0: the embeddings, default: the last.",
)
llm_embed_text = embed_text = SqlFunction(
    "llm_embed_text",
    ("text text, model text?, layer integer?, pooling text?", "tensor"),
    doc="A text's hidden states in a layer: their mean or the last [d_model], or all [T, d_model].",
)
llm_perplexity = perplexity = SqlFunction(
    "llm_perplexity",
    ("model text, text text, stride integer?", "double precision"),
    doc="exp of the mean negative log-likelihood of the text's tokens.",
)
llm_evaluate = evaluate = RowsFunction(
    "llm_evaluate",
    (
        "model text, split text?, stride integer?, query text?",
        "(tokens bigint, nll double precision, perplexity double precision)",
    ),
    doc="Evaluate a split of the model's data, or a query's documents: tokens, mean loss, perplexity.",
)

# ---- training ----

llm_train = train = SqlFunction(
    "llm_train",
    (
        f"model text, n_steps integer, {_CHECKED}, {_ADAMW}, grad_clip double precision?, "
        "grad_workers integer?, prune_workers integer?, batch_size integer?, grad_accum integer?, "
        "block_size integer?, schedule text?, min_lr double precision?, decay text?, seed bigint?, "
        "data_order text?, start_step bigint?, total_steps bigint?, log_every integer?, keep_grad boolean?",
        "bigint",
    ),
    doc="Train for n_steps optimizer steps in one transaction. Returns the run's id.",
)
llm_finetune = finetune = RowsFunction(
    "llm_finetune",
    (
        "model text, query text, steps integer, new_name text?, block_size integer?, stride integer?, "
        "validation double precision?, batch_size integer?, grad_accum integer?, lr_max double precision?, "
        "warmup integer?, schedule text?, min_lr double precision?, dropout_p double precision?, "
        "wd double precision?, grad_clip double precision?, decay text?, seed bigint?, log_every integer?",
        "(name text, perplexity_before double precision, perplexity_after double precision)",
    ),
    doc="Train a copy of the model on a query's documents: its name, held-out perplexity before and after.",
)
llm_train_step = train_step = SqlFunction(
    "llm_train_step",
    (
        f"model text, batch_id bigint, {_CHECKED}, {_ADAMW}, total_steps bigint?, "
        "grad_clip double precision?, grad_workers integer?, prune_workers integer?",
        "double precision",
    ),
    doc="One training step on one row of llm_dataset, written back. Returns the loss before it.",
)
llm_materialize_params = materialize_params = SqlFunction(
    "llm_materialize_params",
    ("model text", "integer"),
    doc="Training by hand: read the model into this session's memory. Returns the number of llm_param rows.",
)
llm_backprop = backprop = SqlFunction(
    "llm_backprop",
    ("start_id bigint?, model text?", "bigint"),
    doc="Training by hand: compute the gradients of the recorded pass. Returns the number of ops.",
)
llm_accumulate_grads = accumulate_grads = SqlFunction(
    "llm_accumulate_grads",
    ("model text, workers integer?", "integer"),
    doc="Training by hand: store the gradients in llm_param.grad. Returns the number of rows.",
)
llm_prune_autograd_state = prune_autograd_state = SqlFunction(
    "llm_prune_autograd_state",
    ("workers integer?", "bigint"),
    doc="Training by hand: free the tape in this session's memory. Returns the number of its ops.",
)
llm_tape_flush = tape_flush = SqlFunction(
    "llm_tape_flush",
    ("run bigint?, model text?, step bigint?", "bigint"),
    doc="Write the pass in this session's memory to llm_tape and llm_tensor_rt. Returns the number of rows.",
)

# ---- tokenizers and data ----

llm_encode = encode = SqlFunction(
    "llm_encode",
    ("text text, model text?, special boolean?, bos boolean?", "integer[]"),
    doc="Token ids of a text; special tokens in it are recognised unless special is false, bos puts the token"
    " that begins a text in front.",
)
llm_decode = decode = SqlFunction(
    "llm_decode",
    ("ids integer[], model text?", "text"),
    doc="The text of token ids.",
)
llm_build_char_tokenizer = build_char_tokenizer = SqlFunction(
    "llm_build_char_tokenizer",
    ("model text, query text", "integer"),
    doc="Build a tokenizer of the query's characters and BOS. Returns the vocabulary's size.",
)
llm_load_bpe = load_bpe = SqlFunction(
    "llm_load_bpe",
    ("model text, vocab text, merges text?", "integer"),
    ("model text, vocab bytea, merges bytea?, added jsonb?", "integer"),
    doc="Load GPT-2's tokenizer from vocab.json and merges.txt (contents). Returns the vocabulary's size.",
)
llm_token_bytes = token_bytes = SqlFunction(
    "llm_token_bytes",
    ("ids integer[], model text", "bytea"),
    doc="The bytes of token ids, which need not be UTF-8.",
)
llm_end_token = end_token = SqlFunction(
    "llm_end_token",
    ("model text", "integer"),
    doc="The id of the token that ends a document; NULL when there is none.",
)
llm_begin_token = begin_token = SqlFunction(
    "llm_begin_token",
    ("model text", "integer"),
    doc="The id of the token that begins a document; NULL when there is none.",
)
llm_end_tokens = end_tokens = SqlFunction(
    "llm_end_tokens",
    ("model text", "integer[]"),
    doc="The ids of all tokens that end a generation.",
)
pg_llm_load_bpe_vocab = load_bpe_vocab = SqlFunction(
    "pg_llm_load_bpe_vocab",
    ("path text, model text", "integer"),
    doc="Load tokens from a file on the server (vocab.json, encoder.json, .tiktoken). Returns their number.",
)
pg_llm_load_bpe_merges = load_bpe_merges = SqlFunction(
    "pg_llm_load_bpe_merges",
    ("path text, model text", "integer"),
    doc="Load merge rules from a file on the server (merges.txt, vocab.bpe). Returns their number.",
)
llm_train_bpe = train_bpe = SqlFunction(
    "llm_train_bpe",
    ("model text, query text, vocab integer", "integer"),
    doc="Learn byte pair encoding from the query's texts. Returns the vocabulary's size.",
)
llm_fill_dataset = fill_dataset = RowsFunction(
    "llm_fill_dataset",
    (
        "model text, query text, block_size integer?, stride integer?, validation double precision?, "
        "seed bigint?, keep_order boolean?",
        "(train_rows bigint, validation_rows bigint)",
    ),
    doc="Store the query's documents as rows of llm_dataset: numbers of training and held-out rows.",
)

# ---- generation ----

llm_generate = generate = SqlFunction(
    "llm_generate",
    (f"prompt text, {_SAMPLING}", "text"),
    (f"prompts text[], {_SAMPLING}", "text[]"),
    doc="The continuation of a prompt (text), or of each of several (text[]).",
)
llm_generate_stream = generate_stream = RowsFunction(
    "llm_generate_stream",
    (
        f"prompt text, {_SAMPLING}",
        "(step integer, token_id integer, token text, text text, is_complete boolean)",
    ),
    doc="One row per token: its piece of text and the text so far. Fetch it through a cursor.",
)
llm_beam_search = beam_search = RowsFunction(
    "llm_beam_search",
    (
        "prompt text, beam_width integer?, max_tokens integer?, model text?, "
        "length_penalty double precision?, early_stopping boolean?",
        "(rank integer, score double precision, text text, token_ids integer[])",
    ),
    doc="The best continuations of a prompt that beam search finds, best first, one row each.",
)
llm_release = release = SqlFunction(
    "llm_release",
    ("", "bigint"),
    doc="Free the memory of weights that this session no longer uses. Returns the number of bytes.",
)

# ---- weights in and out ----

pg_llm_import_npz = import_npz = SqlFunction(
    "pg_llm_import_npz",
    ("path text, model text, megatron_version double precision?", "bigint"),
    doc="Replace the weights with those of a file on the server, .npz or gzip stream. Returns their number.",
)
pg_llm_import_safetensors = import_safetensors = SqlFunction(
    "pg_llm_import_safetensors",
    ("path text, model text, megatron_version double precision?", "bigint"),
    doc="Replace the weights with those of a safetensors file on the server. Returns their number.",
)
pg_llm_export_npz = export_npz = SqlFunction(
    "pg_llm_export_npz",
    ("path text, model text, gzip boolean?", "bigint"),
    doc="Write the weights to a file on the server, .npz or gzip stream. Returns its size in bytes.",
)
pg_llm_export_safetensors = export_safetensors = SqlFunction(
    "pg_llm_export_safetensors",
    ("path text, model text", "bigint"),
    doc="Write the weights to a safetensors file on the server. Returns its size in bytes.",
)
llm_checkpoint_save = checkpoint_save = SqlFunction(
    "llm_checkpoint_save",
    ("model text, note text?, keep integer?", "bigint"),
    doc="Save a model with all that belongs to it in the checkpoint directory. Returns the checkpoint's id.",
)
llm_checkpoint_load = checkpoint_load = SqlFunction(
    "llm_checkpoint_load",
    ("model text, id bigint", "bigint"),
    doc="Restore the model to its state when the checkpoint was saved. Returns its step.",
)
llm_checkpoint_orphans = checkpoint_orphans = RowsFunction(
    "llm_checkpoint_orphans",
    ("remove boolean?", "(folder text, files bigint, bytes bigint)"),
    doc="Checkpoint folders that dropped databases left; removed on request. Superusers only.",
)

FUNCTIONS = tuple(value for name, value in list(globals().items()) if name.startswith(("llm_", "pg_llm_")))
"""Every function of the catalogue."""
