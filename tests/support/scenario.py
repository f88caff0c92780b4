"""The whole surface once, from a tokenizer to llm_drop_model: what must come out the same in any session.

`run` makes the calls in the session under test, whose path need not find anything of ours; what they leave in
relations is read by another session, whose settings are the defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
Results = dict[str, Any]

DOCUMENTS = "VALUES ('abcab'), ('bcaab'), ('cabca'), ('abccba'), ('aabbcc'), ('cbacba')"

# An architecture of a user's, whose functions have no search_path of their own and use bare names.
USERS = """
CREATE SCHEMA users;
CREATE TABLE users.docs (body text);
INSERT INTO users.docs SELECT * FROM ({documents}) d;
CREATE FUNCTION public.users_parameters(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY VALUES ('wte.weight', ARRAY[4, 4], 'normal', 0.5 + bare_number());
END $$;
CREATE FUNCTION users.bare_number() RETURNS double precision LANGUAGE sql IMMUTABLE RETURN 0.25;
CREATE FUNCTION public.users_forward(
    model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean
) RETURNS public.tensor LANGUAGE plpgsql AS $$
DECLARE
    w tensor := llm_weight(model, 'wte.weight');
    x tensor := pg_llm_embedding(w, tokens) * 2.0::double precision + bare_number();
BEGIN
    RETURN CASE WHEN targets IS NULL THEN pg_llm_lm_head(x, w) ELSE pg_llm_lm_head_loss(x, w, targets) END;
END $$;
CREATE FUNCTION public.llm_hidden_users(model text, tokens int[], n_blocks int) RETURNS tensor
LANGUAGE plpgsql AS $$
BEGIN
    RETURN pg_llm_embedding(llm_weight(model, 'wte.weight'), tokens) * bare_number();
END $$;
INSERT INTO public.llm_arch (arch, forward, parameters) VALUES ('users', 'users_forward', 'users_parameters');
"""

# Statements of the session under test, by the name their results go by.
CALLS: dict[str, str] = {
    "characters": f"SELECT public.llm_build_char_tokenizer('s', $${DOCUMENTS};$$)",
    "weights": "SELECT public.llm_create_model('s', 'gpt2', 1, 2, 8, 8, seed => 3)",
    "rows": f"SELECT * FROM public.llm_fill_dataset('s', $${DOCUMENTS}$$, validation => 0.34)",
    "train": "SELECT public.llm_train('s', 4, lr_max => 1 OPERATOR(pg_catalog./) 3000.0, min_lr => 1e-7,"
    " grad_clip => 0.3, batch_size => 2, grad_accum => 2, keep_grad => true) IS NOT NULL",
    "loop": "CALL public.llm_train_loop('s', 4, 2, lr_max => 1 OPERATOR(pg_catalog./) 3e3,"
    " wd => 0.1 OPERATOR(pg_catalog./) 3, schedule => 'linear')",
    "step": "SELECT public.llm_train_step('s', (SELECT pg_catalog.min(d.id) FROM public.llm_dataset d"
    " WHERE d.model OPERATOR(pg_catalog.=) 's'), lr_max => 2.0 OPERATOR(pg_catalog./) 3)",
    "materialize": "SELECT public.llm_materialize_params('s')",
    "recording": "UPDATE public.llm_autograd_mode SET flag = true",
    "loss": "SELECT public.llm_loss('s', '{0,1,2}', '{1,2,3}', 1, 2, 8, 4, 0.1, true)",
    "backprop": "SELECT public.llm_backprop(NULL, 's')",
    "accumulate": "SELECT public.llm_accumulate_grads('s')",
    "prune": "SELECT public.llm_prune_autograd_state()",
    "off": "DELETE FROM public.llm_autograd_mode",
    "generate": "SELECT public.llm_generate('ab', 12, model => 's', seed => 5, stop => '{zz}',"
    " presence_penalty => 0.1)",
    "generate many": "SELECT public.llm_generate('{ab,c,\"\"}'::pg_catalog.text[], 9, 0, model => 's')",
    "stream": "SELECT * FROM public.llm_generate_stream('ab', 12, model => 's', seed => 5, echo => true)",
    "beams": "SELECT * FROM public.llm_beam_search('ab', 3, 5, 's', 0.7)",
    "evaluate": "SELECT * FROM public.llm_evaluate('s', stride => 3)",
    "evaluate query": f"SELECT * FROM public.llm_evaluate('s', query => $${DOCUMENTS};$$)",
    "perplexity": "SELECT public.llm_perplexity('s', 'abcabcabcabcabc')",
    "embed": "SELECT public.llm_embed_text('abcabcabcabcabc', 's')",
    "hidden": "SELECT public.llm_hidden('s', '{0,1}', 0)",
    "logits": "SELECT public.llm_logits('{{0,1},{2,1}}', 's')",
    "encode": "SELECT public.llm_encode('abc', 's'), public.llm_decode('{2,1,0}', 's')",
    "save": "SELECT public.llm_checkpoint_save('s', 'a note') IS NOT NULL",
    "reinitialise": "SELECT public.llm_init_model('s', 9)",
    "load": "SELECT public.llm_checkpoint_load('s', (SELECT pg_catalog.max(c.id) FROM public.llm_checkpoint c"
    " WHERE c.model OPERATOR(pg_catalog.=) 's'))",
    "export": "SELECT public.pg_llm_export_safetensors('{folder}/s.safetensors', 's') IS NOT NULL",
    "import": "SELECT public.pg_llm_import_safetensors('{folder}/s.safetensors', 's')",
    "export npz": "SELECT public.pg_llm_export_npz('{folder}/s.npz', 's', true) IS NOT NULL",
    "import npz": "SELECT public.pg_llm_import_npz('{folder}/s.npz', 's')",
    "finetune": f"SELECT * FROM public.llm_finetune('s', $${DOCUMENTS}$$, 3, 's2', validation => 0.34)",
    "train_bpe": f"SELECT public.llm_train_bpe('b', $${DOCUMENTS}$$, 260)",
    "encode bpe": "SELECT public.llm_encode('abcab<|endoftext|>', 'b', true),"
    " public.llm_decode('{256,257}', 'b')",
    "steps": "SELECT step, activations FROM public.llm_step ORDER BY tape_id",
    "elements": 'SELECT head, tensor_name, "values" FROM public.llm_param_er ORDER BY param_id, head',
    "status": "SELECT model, status, planned_step FROM public.llm_train_status ORDER BY run_id",
    "held out": "SELECT model, seq, target FROM public.llm_heldout ORDER BY id",
    "release": "SELECT public.llm_release() IS NOT NULL",
    "gpt3": "SELECT public.llm_create_model('g', 'gpt3', 1, 1, 4, 4, 5)",
    "gpt3 logits": "SELECT public.llm_logits('{0,1}', 'g'), public.llm_hidden('g', '{0,1}')",
    "microgpt": "SELECT public.llm_create_model('m', 'microgpt', vocab => 5)",
    "microgpt logits": "SELECT public.llm_logits('{0,1}', 'm'), public.llm_hidden('m', '{0,1}')",
}
# Those that use the user's own, where the path finds it.
USERS_CALLS: dict[str, str] = {
    "users data": "SELECT public.llm_create_model('s', 'gpt2', 1, 2, 8, 8, 4)",
    "users characters": "SELECT public.llm_build_char_tokenizer('s', 'SELECT body FROM docs')",
    "users query": "SELECT * FROM public.llm_fill_dataset('s', 'SELECT body FROM docs')",
    "users evaluation": "SELECT * FROM public.llm_evaluate('s', query => 'SELECT body FROM docs')",
    "users bpe": "SELECT public.llm_train_bpe('b', 'SELECT body FROM docs', 260)",
    "users model": "SELECT public.llm_create_model('u', 'users', 1, 1, 4, 8, 4)",
    "users tokenizer": "SELECT public.llm_build_char_tokenizer('u', 'SELECT body FROM docs')",
    "users rows": "SELECT * FROM public.llm_fill_dataset('u', 'SELECT body FROM docs')",
    "users train": "SELECT public.llm_train('u', 3) IS NOT NULL",
    "users loop": "CALL public.llm_train_loop('u', 4, 2)",
    "users generation": "SELECT public.llm_generate('ab', 5, model => 'u', seed => 1)",
    "users stream": "SELECT * FROM public.llm_generate_stream('ab', 5, model => 'u', seed => 1)",
    "users embedding": "SELECT public.llm_embed_text('ab', 'u')",
}
LEFT: dict[str, str] = {
    "parameters": "SELECT model, name, token_id, step, data::bytea, m::bytea, v::bytea, grad::bytea"
    " FROM llm_param WHERE model = ANY (%(models)s) ORDER BY 1, 2, 3",
    "log": "SELECT model, step, lr, loss, grad_norm, tokens, superseded FROM llm_train_log"
    " WHERE model = ANY (%(models)s) ORDER BY tape_id",
    "runs": "SELECT model, (hyperparameters - 'row')::text, seed, first_step, last_step, status"
    " FROM llm_train_run WHERE model = ANY (%(models)s) ORDER BY run_id",
    "clips": "SELECT clip_threshold, applied_norm, gradient_slice::text FROM llm_clip ORDER BY clip_id",
    "tape": "SELECT model, step, position, name, extra::text FROM llm_tape ORDER BY id",
    "tensors": "SELECT shape, requires_grad, norm, grad_norm FROM llm_tensor_rt ORDER BY id",
    "data": "SELECT model, split, tokens, target FROM llm_dataset WHERE model = ANY (%(models)s) ORDER BY id",
    "configurations": "SELECT model, (to_jsonb(c) - 'created_at')::text FROM llm_model_config c"
    " WHERE model = ANY (%(models)s) ORDER BY model",
    "tokenizers": "SELECT model, token_id, token, bytes, score FROM llm_bpe_vocab ORDER BY 1, 2",
    "tokenizer_settings": "SELECT model, kind, settings FROM llm_tokenizer ORDER BY 1",
    "merges": "SELECT model, rank, pair FROM llm_bpe_merges ORDER BY 1, 2",
}
MODELS = ("s", "s2", "g", "m", "u")
# Numbers that few digits do not hold.
EXACT = "UPDATE llm_model_config SET layer_norm_eps = 1.2345678901234e-5 WHERE model = 's'"


def prepare(owner: Connection) -> None:
    """What the scenario needs of a database beside ours."""
    owner.execute(USERS.format(documents=DOCUMENTS))


def run(session: Connection, observer: Connection, folder: Path, calls: dict[str, str] = CALLS) -> Results:
    """The results of all calls, and what they left behind; the models are gone afterwards."""
    results: Results = {}
    for name, statement in calls.items():
        cursor = session.execute(
            statement.replace("{folder}", str(folder)), binary=not statement.startswith("CALL")
        )
        found = cursor.fetchall() if cursor.description else cursor.statusmessage
        results[name] = str(
            [[_plain(column) for column in row] for row in found] if cursor.description else found
        )
        if name == "weights":
            observer.execute(EXACT)
    for name, query in LEFT.items():
        results[f"left: {name}"] = observer.execute(query, {"models": list(MODELS)}).fetchall()
    made = observer.execute(
        "SELECT model FROM llm_model_config WHERE model = ANY (%s) ORDER BY 1", (list(MODELS),)
    )
    for [model] in made.fetchall():
        session.execute(f"SELECT public.llm_drop_model('{model}')")
    for table in ("llm_train_run", "llm_tape", "llm_tensor_rt", "llm_bpe_vocab", "llm_bpe_merges"):
        observer.execute(f"DELETE FROM {table}")
    return results


def _plain(value: Any) -> Any:
    return (value.shape, value.tobytes()) if hasattr(value, "tobytes") else value


def differences(found: Results, expected: Results) -> list[str]:
    """Names of the results that differ, with both."""
    return [
        f"{name}: {found.get(name)!r:.2000} instead of {expected[name]!r:.2000}"
        for name in expected
        if found.get(name) != expected[name]
    ]
