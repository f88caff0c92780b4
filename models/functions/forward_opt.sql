-- Compiled from the trees of llm_sql.graph by `python -m llm_sql.graph`; change them there.

CREATE FUNCTION public.llm_forward_opt(
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
    x3 public.tensor;
    x4 public.tensor;
    setting_norm_first boolean;
    setting_d_embed int;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_norm_first := (config.settings ->> 'norm_first')::boolean;
    setting_d_embed := (config.settings ->> 'd_embed')::int;
    -- A caller that computes many passes pins the version once for all of them.
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x1 := public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens);
    x := public.pg_llm_dropout(
        public.pg_llm_add(
            CASE
                WHEN setting_d_embed IS NOT NULL THEN
                    public.pg_llm_linear(x1, public.pg_llm_param(model, 'project_in.weight'))
                ELSE
                    x1
            END,
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
        x1 := CASE
            WHEN setting_norm_first THEN
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
                    config.layer_norm_eps
                )
            ELSE
                x
        END;
        x2 := public.pg_llm_add(
            x,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_causal_attention(
                        public.pg_llm_linear(
                            x1,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.bias')
                        ),
                        public.pg_llm_linear(
                            x1,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.bias')
                        ),
                        public.pg_llm_linear(
                            x1,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.bias')
                        ),
                        config.n_head,
                        dropout_p,
                        training,
                        'h.' || layer::text || '.attn'
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.bias')
                ),
                dropout_p,
                training,
                'h.' || layer::text || '.resid_attn'
            )
        );
        x3 := CASE
            WHEN setting_norm_first THEN
                x2
            ELSE
                public.pg_llm_layernorm(
                    x2,
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
                    config.layer_norm_eps
                )
        END;
        x4 := public.pg_llm_add(
            x3,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_activation(
                        public.pg_llm_linear(
                            CASE
                                WHEN setting_norm_first THEN
                                    public.pg_llm_layernorm(
                                        x3,
                                        public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
                                        public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
                                        config.layer_norm_eps
                                    )
                                ELSE
                                    x3
                            END,
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc1.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc1.bias')
                        ),
                        config.activation_function
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc2.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc2.bias')
                ),
                dropout_p,
                training,
                'h.' || layer::text || '.resid_mlp'
            )
        );
        x := CASE
            WHEN setting_norm_first THEN
                x4
            ELSE
                public.pg_llm_layernorm(
                    x4,
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
                    config.layer_norm_eps
                )
        END;
    END LOOP;
    PERFORM public.pg_llm_tape_segment();
    IF targets IS NOT NULL THEN
        x1 := CASE
            WHEN setting_norm_first THEN
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'ln_f.weight'),
                    public.pg_llm_param(model, 'ln_f.bias'),
                    config.layer_norm_eps
                )
            ELSE
                x
        END;
        x := public.pg_llm_lm_head_loss(
            CASE
                WHEN setting_d_embed IS NOT NULL THEN
                    public.pg_llm_linear(x1, public.pg_llm_param(model, 'project_out.weight'))
                ELSE
                    x1
            END,
            public.pg_llm_param(
                model,
                CASE WHEN config.tied THEN 'wte.weight' ELSE 'lm_head.weight' END
            ),
            targets
        );
    ELSIF last_only THEN
        x1 := CASE
            WHEN setting_norm_first THEN
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'ln_f.weight'),
                    public.pg_llm_param(model, 'ln_f.bias'),
                    config.layer_norm_eps
                )
            ELSE
                x
        END;
        x := public.pg_llm_lm_head(
            public.pg_llm_last(
                CASE
                    WHEN setting_d_embed IS NOT NULL THEN
                        public.pg_llm_linear(x1, public.pg_llm_param(model, 'project_out.weight'))
                    ELSE
                        x1
                END
            ),
            public.pg_llm_param(
                model,
                CASE WHEN config.tied THEN 'wte.weight' ELSE 'lm_head.weight' END
            )
        );
    ELSE
        x1 := CASE
            WHEN setting_norm_first THEN
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'ln_f.weight'),
                    public.pg_llm_param(model, 'ln_f.bias'),
                    config.layer_norm_eps
                )
            ELSE
                x
        END;
        x := public.pg_llm_lm_head(
            CASE
                WHEN setting_d_embed IS NOT NULL THEN
                    public.pg_llm_linear(x1, public.pg_llm_param(model, 'project_out.weight'))
                ELSE
                    x1
            END,
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

COMMENT ON FUNCTION public.llm_forward_opt(text, int[], boolean, int[], double precision, boolean) IS
'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the '
'logits of the last position, [..., 1, V]. OPT: GPT-2''s blocks with ReLU; with norms after the sums its '
'350m (Zhang et al. 2022).';


CREATE FUNCTION public.llm_hidden_opt(
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
    x3 public.tensor;
    x4 public.tensor;
    setting_norm_first boolean;
    setting_d_embed int;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_norm_first := (config.settings ->> 'norm_first')::boolean;
    setting_d_embed := (config.settings ->> 'd_embed')::int;
    n_blocks := COALESCE(n_blocks, config.n_layer);
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x1 := public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens);
    x := public.pg_llm_dropout(
        public.pg_llm_add(
            CASE
                WHEN setting_d_embed IS NOT NULL THEN
                    public.pg_llm_linear(x1, public.pg_llm_param(model, 'project_in.weight'))
                ELSE
                    x1
            END,
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
        x1 := CASE
            WHEN setting_norm_first THEN
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
                    config.layer_norm_eps
                )
            ELSE
                x
        END;
        x2 := public.pg_llm_add(
            x,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_causal_attention(
                        public.pg_llm_linear(
                            x1,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.bias')
                        ),
                        public.pg_llm_linear(
                            x1,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.bias')
                        ),
                        public.pg_llm_linear(
                            x1,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.bias')
                        ),
                        config.n_head,
                        0.0,
                        false,
                        'h.' || layer::text || '.attn'
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.bias')
                ),
                0.0,
                false,
                'h.' || layer::text || '.resid_attn'
            )
        );
        x3 := CASE
            WHEN setting_norm_first THEN
                x2
            ELSE
                public.pg_llm_layernorm(
                    x2,
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
                    config.layer_norm_eps
                )
        END;
        x4 := public.pg_llm_add(
            x3,
            public.pg_llm_dropout(
                public.pg_llm_linear(
                    public.pg_llm_activation(
                        public.pg_llm_linear(
                            CASE
                                WHEN setting_norm_first THEN
                                    public.pg_llm_layernorm(
                                        x3,
                                        public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
                                        public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
                                        config.layer_norm_eps
                                    )
                                ELSE
                                    x3
                            END,
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc1.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc1.bias')
                        ),
                        config.activation_function
                    ),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc2.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.fc2.bias')
                ),
                0.0,
                false,
                'h.' || layer::text || '.resid_mlp'
            )
        );
        x := CASE
            WHEN setting_norm_first THEN
                x4
            ELSE
                public.pg_llm_layernorm(
                    x4,
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
                    config.layer_norm_eps
                )
        END;
    END LOOP;
    IF n_blocks = config.n_layer THEN
        x1 := CASE
            WHEN setting_norm_first THEN
                public.pg_llm_layernorm(
                    x,
                    public.pg_llm_param(model, 'ln_f.weight'),
                    public.pg_llm_param(model, 'ln_f.bias'),
                    config.layer_norm_eps
                )
            ELSE
                x
        END;
        x := CASE
            WHEN setting_d_embed IS NOT NULL THEN
                public.pg_llm_linear(x1, public.pg_llm_param(model, 'project_out.weight'))
            ELSE
                x1
        END;
    END IF;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_hidden_opt(text, int[], int) IS
'The residual stream [..., T, D] of architecture opt after n_blocks blocks, 0 for the embeddings; after '
'the last block, the default, what the head makes logits from.';


CREATE FUNCTION public.llm_parameters_opt(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    setting_norm_first boolean;
    setting_d_embed int;
BEGIN
    config := public.llm_config(model);
    setting_norm_first := (config.settings ->> 'norm_first')::boolean;
    setting_d_embed := (config.settings ->> 'd_embed')::int;
    name := 'wte.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[
        config.vocab,
        coalesce(setting_d_embed, config.d_model)
    ]::int[]; RETURN NEXT;
    name := 'wpe.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[config.n_positions, config.d_model]::int[]; RETURN NEXT;
    IF setting_d_embed IS NOT NULL THEN
        name := 'project_in.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            coalesce(setting_d_embed, config.d_model),
            config.d_model
        ]::int[]; RETURN NEXT;
    END IF;
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        name := 'h.' || layer::text || '.ln_1.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_1.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.q_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.q_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.k_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.k_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.v_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.v_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.o_proj.weight';
        init := 'residual'; std := 0.02 / sqrt(2.0 * config.n_layer);
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.o_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_2.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_2.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc1.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            COALESCE(config.d_ff, 4 * config.d_model)
        ]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc1.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[COALESCE(config.d_ff, 4 * config.d_model)]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc2.weight';
        init := 'residual'; std := 0.02 / sqrt(2.0 * config.n_layer);
        shape := ARRAY[
            COALESCE(config.d_ff, 4 * config.d_model),
            config.d_model
        ]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc2.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    END LOOP;
    IF setting_norm_first THEN
        name := 'ln_f.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    END IF;
    IF setting_norm_first THEN
        name := 'ln_f.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    END IF;
    IF setting_d_embed IS NOT NULL THEN
        name := 'project_out.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            coalesce(setting_d_embed, config.d_model)
        ]::int[]; RETURN NEXT;
    END IF;
    IF NOT config.tied THEN
        name := 'lm_head.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.vocab,
            coalesce(setting_d_embed, config.d_model)
        ]::int[]; RETURN NEXT;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_opt(text) IS
'Name, shape and initialisation of every parameter of a model of architecture opt. init: normal or '
'residual with standard deviation std, zeros, ones.';
