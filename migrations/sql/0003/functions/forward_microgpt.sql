-- Compiled from the trees of llm_sql.graph by `python -m llm_sql.graph`; change them there.

CREATE FUNCTION public.llm_forward_microgpt(
    model text,
    tokens int[],
    training boolean DEFAULT false,
    targets int[] DEFAULT NULL,
    dropout_p double precision DEFAULT 0.1,
    last_only boolean DEFAULT false
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    pinned boolean;
    x public.tensor;
    x1 public.tensor;
    x2 public.tensor;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    -- A caller that computes many passes pins the version once for all of them.
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_rmsnorm(
        public.pg_llm_add(
            public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
            public.pg_llm_embedding(
                public.pg_llm_param(model, 'wpe.weight'),
                public.pg_llm_positions(tokens)
            )
        ),
        config.layer_norm_eps
    );
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        PERFORM public.pg_llm_tape_segment();
        x1 := public.pg_llm_rmsnorm(x, config.layer_norm_eps);
        x2 := public.pg_llm_add(
            x,
            public.pg_llm_linear(
                public.pg_llm_causal_attention(
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight')
                    ),
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight')
                    ),
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight')
                    ),
                    config.n_head,
                    0.0,
                    training,
                    ''
                ),
                public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight')
            )
        );
        x := public.pg_llm_add(
            x2,
            public.pg_llm_linear(
                public.pg_llm_relu(
                    public.pg_llm_linear(
                        public.pg_llm_rmsnorm(x2, config.layer_norm_eps),
                        public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc1.weight')
                    )
                ),
                public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc2.weight')
            )
        );
    END LOOP;
    PERFORM public.pg_llm_tape_segment();
    IF targets IS NOT NULL THEN
        x := public.pg_llm_lm_head_loss(x, public.pg_llm_param(model, 'lm_head.weight'), targets);
    ELSIF last_only THEN
        x := public.pg_llm_lm_head(public.pg_llm_last(x), public.pg_llm_param(model, 'lm_head.weight'));
    ELSE
        x := public.pg_llm_lm_head(x, public.pg_llm_param(model, 'lm_head.weight'));
    END IF;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_forward_microgpt(text, int[], boolean, int[], double precision, boolean) IS
'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the '
'logits of the last position, [..., 1, V]. microgpt: RMSNorm without gains, ReLU, no biases, head of its '
'own (Karpathy 2026).';


CREATE FUNCTION public.llm_hidden_microgpt(
    model text,
    tokens int[],
    n_blocks int DEFAULT NULL
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    pinned boolean;
    x public.tensor;
    x1 public.tensor;
    x2 public.tensor;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    n_blocks := COALESCE(n_blocks, config.n_layer);
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_rmsnorm(
        public.pg_llm_add(
            public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
            public.pg_llm_embedding(
                public.pg_llm_param(model, 'wpe.weight'),
                public.pg_llm_positions(tokens)
            )
        ),
        config.layer_norm_eps
    );
    FOR layer IN 0 .. least(n_blocks, config.n_layer) - 1 LOOP
        x1 := public.pg_llm_rmsnorm(x, config.layer_norm_eps);
        x2 := public.pg_llm_add(
            x,
            public.pg_llm_linear(
                public.pg_llm_causal_attention(
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight')
                    ),
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight')
                    ),
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight')
                    ),
                    config.n_head,
                    0.0,
                    false,
                    ''
                ),
                public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight')
            )
        );
        x := public.pg_llm_add(
            x2,
            public.pg_llm_linear(
                public.pg_llm_relu(
                    public.pg_llm_linear(
                        public.pg_llm_rmsnorm(x2, config.layer_norm_eps),
                        public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc1.weight')
                    )
                ),
                public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc2.weight')
            )
        );
    END LOOP;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_hidden_microgpt(text, int[], int) IS
'The residual stream [..., T, D] of architecture microgpt after n_blocks blocks, 0 for the embeddings; '
'after the last block, the default, what the head makes logits from.';


CREATE FUNCTION public.llm_parameters_microgpt(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
BEGIN
    config := public.llm_config(model);
    name := 'wte.weight';
    init := 'normal'; std := 0.08;
    shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    name := 'wpe.weight';
    init := 'normal'; std := 0.08;
    shape := ARRAY[config.n_positions, config.d_model]::int[]; RETURN NEXT;
    name := 'lm_head.weight';
    init := 'normal'; std := 0.08;
    shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        name := 'h.' || layer::text || '.attn.q_proj.weight';
        init := 'normal'; std := 0.08;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.k_proj.weight';
        init := 'normal'; std := 0.08;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.v_proj.weight';
        init := 'normal'; std := 0.08;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.o_proj.weight';
        init := 'normal'; std := 0.08;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc1.weight';
        init := 'normal'; std := 0.08;
        shape := ARRAY[
            config.d_model,
            COALESCE(config.d_ff, 4 * config.d_model)
        ]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc2.weight';
        init := 'normal'; std := 0.08;
        shape := ARRAY[
            COALESCE(config.d_ff, 4 * config.d_model),
            config.d_model
        ]::int[]; RETURN NEXT;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_microgpt(text) IS
'Name, shape and initialisation of every parameter of a model of architecture microgpt. init: normal or '
'residual with standard deviation std, zeros, ones.';
