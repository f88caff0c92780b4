-- Compiled from the trees of llm_sql.graph by `python -m llm_sql.graph`; change them there.

CREATE FUNCTION public.llm_forward_gpt3(
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
    setting_band int;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_band := (config.settings ->> 'band')::int;
    -- A caller that computes many passes pins the version once for all of them.
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_dropout(
        public.pg_llm_add(
            public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
            public.pg_llm_embedding(
                public.pg_llm_param(model, 'wpe.weight'),
                public.pg_llm_positions(tokens)
            )
        ),
        dropout_p,
        training,
        'embd'
    );
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        PERFORM public.pg_llm_tape_segment();
        x1 := public.pg_llm_add(
            x,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_causal_attention(
                        public.pg_llm_linear(
                            public.pg_llm_layernorm(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
                                config.layer_norm_eps
                            ),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_attn.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_attn.bias')
                        ),
                        config.n_head,
                        dropout_p,
                        training,
                        'h.' || layer::text || '.attn',
                        CASE WHEN (layer % 2 = 1) THEN setting_band END
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_proj.bias')
                ),
                dropout_p,
                training,
                'h.' || layer::text || '.resid_attn'
            )
        );
        x := public.pg_llm_add(
            x1,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_activation(
                        public.pg_llm_linear(
                            public.pg_llm_layernorm(
                                x1,
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
                                config.layer_norm_eps
                            ),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_fc.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_fc.bias')
                        ),
                        config.activation_function
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_proj.bias')
                ),
                dropout_p,
                training,
                'h.' || layer::text || '.resid_mlp'
            )
        );
    END LOOP;
    PERFORM public.pg_llm_tape_segment();
    IF targets IS NOT NULL THEN
        x := public.pg_llm_lm_head_loss(
            public.pg_llm_layernorm(
                x,
                public.pg_llm_param(model, 'ln_f.weight'),
                public.pg_llm_param(model, 'ln_f.bias'),
                config.layer_norm_eps
            ),
            public.pg_llm_param(
                model,
                CASE WHEN config.tied THEN 'wte.weight' ELSE 'lm_head.weight' END
            ),
            targets
        );
    ELSIF last_only THEN
        x := public.pg_llm_lm_head(
            public.pg_llm_last(
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'ln_f.weight'),
                    public.pg_llm_param(model, 'ln_f.bias'),
                    config.layer_norm_eps
                )
            ),
            public.pg_llm_param(
                model,
                CASE WHEN config.tied THEN 'wte.weight' ELSE 'lm_head.weight' END
            )
        );
    ELSE
        x := public.pg_llm_lm_head(
            public.pg_llm_layernorm(
                x,
                public.pg_llm_param(model, 'ln_f.weight'),
                public.pg_llm_param(model, 'ln_f.bias'),
                config.layer_norm_eps
            ),
            public.pg_llm_param(
                model,
                CASE WHEN config.tied THEN 'wte.weight' ELSE 'lm_head.weight' END
            )
        );
    END IF;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_forward_gpt3(text, int[], boolean, int[], double precision, boolean) IS
'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the '
'logits of the last position, [..., 1, V]. GPT-3: GPT-2''s graph; with the setting band, odd layers see a '
'band of tokens (Brown et al. 2020).';


CREATE FUNCTION public.llm_hidden_gpt3(
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
    setting_band int;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_band := (config.settings ->> 'band')::int;
    n_blocks := COALESCE(n_blocks, config.n_layer);
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_dropout(
        public.pg_llm_add(
            public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
            public.pg_llm_embedding(
                public.pg_llm_param(model, 'wpe.weight'),
                public.pg_llm_positions(tokens)
            )
        ),
        0.0,
        false,
        'embd'
    );
    FOR layer IN 0 .. least(n_blocks, config.n_layer) - 1 LOOP
        x1 := public.pg_llm_add(
            x,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_causal_attention(
                        public.pg_llm_linear(
                            public.pg_llm_layernorm(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
                                config.layer_norm_eps
                            ),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_attn.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_attn.bias')
                        ),
                        config.n_head,
                        0.0,
                        false,
                        'h.' || layer::text || '.attn',
                        CASE WHEN (layer % 2 = 1) THEN setting_band END
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.c_proj.bias')
                ),
                0.0,
                false,
                'h.' || layer::text || '.resid_attn'
            )
        );
        x := public.pg_llm_add(
            x1,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_activation(
                        public.pg_llm_linear(
                            public.pg_llm_layernorm(
                                x1,
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
                                config.layer_norm_eps
                            ),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_fc.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_fc.bias')
                        ),
                        config.activation_function
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.c_proj.bias')
                ),
                0.0,
                false,
                'h.' || layer::text || '.resid_mlp'
            )
        );
    END LOOP;
    IF n_blocks = config.n_layer THEN
        x := public.pg_llm_layernorm(
            x,
            public.pg_llm_param(model, 'ln_f.weight'),
            public.pg_llm_param(model, 'ln_f.bias'),
            config.layer_norm_eps
        );
    END IF;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_hidden_gpt3(text, int[], int) IS
'The residual stream [..., T, D] of architecture gpt3 after n_blocks blocks, 0 for the embeddings; after '
'the last block, the default, what the head makes logits from.';


CREATE FUNCTION public.llm_parameters_gpt3(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
BEGIN
    config := public.llm_config(model);
    name := 'wte.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    name := 'wpe.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[config.n_positions, config.d_model]::int[]; RETURN NEXT;
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        name := 'h.' || layer::text || '.ln_1.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_1.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.c_attn.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.d_model, 3 * config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.c_attn.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[3 * config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.c_proj.weight';
        init := 'residual'; std := 0.02 / sqrt(2.0 * config.n_layer);
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.c_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_2.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_2.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.c_fc.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            COALESCE(config.d_ff, 4 * config.d_model)
        ]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.c_fc.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[COALESCE(config.d_ff, 4 * config.d_model)]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.c_proj.weight';
        init := 'residual'; std := 0.02 / sqrt(2.0 * config.n_layer);
        shape := ARRAY[
            COALESCE(config.d_ff, 4 * config.d_model),
            config.d_model
        ]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.c_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    END LOOP;
    name := 'ln_f.weight';
    init := 'ones'; std := NULL;
    shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    name := 'ln_f.bias';
    init := 'zeros'; std := NULL;
    shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    IF NOT config.tied THEN
        name := 'lm_head.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_gpt3(text) IS
'Name, shape and initialisation of every parameter of a model of architecture gpt3. init: normal or '
'residual with standard deviation std, zeros, ones.';
