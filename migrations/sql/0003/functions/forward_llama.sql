-- Compiled from the trees of llm_sql.graph by `python -m llm_sql.graph`; change them there.

CREATE FUNCTION public.llm_forward_llama(
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
    x3 int[];
    x4 public.tensor;
    x5 public.tensor;
    x6 public.tensor;
    x7 public.tensor;
    x8 public.tensor;
    x9 public.tensor;
    x10 public.tensor;
    setting_n_kv_head int;
    setting_rope_theta double precision;
    setting_rope_dims int;
    setting_rope_scaling jsonb;
    setting_window int;
    setting_qk_norm boolean;
    setting_qkv_bias boolean;
    setting_o_bias boolean;
    setting_mlp_bias boolean;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_n_kv_head := (config.settings ->> 'n_kv_head')::int;
    setting_rope_theta := (config.settings ->> 'rope_theta')::double precision;
    setting_rope_dims := (config.settings ->> 'rope_dims')::int;
    setting_rope_scaling := (config.settings -> 'rope_scaling');
    setting_window := (config.settings ->> 'window')::int;
    setting_qk_norm := (config.settings ->> 'qk_norm')::boolean;
    setting_qkv_bias := (config.settings ->> 'qkv_bias')::boolean;
    setting_o_bias := (config.settings ->> 'o_bias')::boolean;
    setting_mlp_bias := (config.settings ->> 'mlp_bias')::boolean;
    -- A caller that computes many passes pins the version once for all of them.
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_dropout(
        public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
        dropout_p,
        training,
        'embd'
    );
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        PERFORM public.pg_llm_tape_segment();
        x1 := public.pg_llm_rmsnorm(
            x,
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
            config.layer_norm_eps
        );
        x2 := CASE
            WHEN setting_qkv_bias THEN
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight')
                )
        END;
        x3 := public.pg_llm_positions(tokens);
        x4 := CASE
            WHEN setting_qkv_bias THEN
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight')
                )
        END;
        x5 := public.pg_llm_causal_attention(
            public.pg_llm_rotary(
                CASE
                    WHEN setting_qk_norm THEN
                        public.pg_llm_rmsnorm(
                            x2,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_norm.weight'),
                            config.layer_norm_eps
                        )
                    ELSE
                        x2
                END,
                config.n_head,
                setting_rope_theta,
                setting_rope_dims,
                x3,
                setting_rope_scaling
            ),
            public.pg_llm_rotary(
                CASE
                    WHEN setting_qk_norm THEN
                        public.pg_llm_rmsnorm(
                            x4,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_norm.weight'),
                            config.layer_norm_eps
                        )
                    ELSE
                        x4
                END,
                coalesce(setting_n_kv_head, config.n_head),
                setting_rope_theta,
                setting_rope_dims,
                x3,
                setting_rope_scaling
            ),
            CASE
                WHEN setting_qkv_bias THEN
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight'),
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.bias')
                    )
                ELSE
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight')
                    )
            END,
            config.n_head,
            dropout_p,
            training,
            'h.' || layer::text || '.attn',
            coalesce(setting_n_kv_head, config.n_head),
            setting_window
        );
        x6 := public.pg_llm_add(
            x,
            public.pg_llm_dropout(
                CASE
                    WHEN setting_o_bias THEN
                        public.pg_llm_linear(
                            x5,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.bias')
                        )
                    ELSE
                        public.pg_llm_linear(
                            x5,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight')
                        )
                END,
                dropout_p,
                training,
                'h.' || layer::text || '.resid_attn'
            )
        );
        x7 := public.pg_llm_rmsnorm(
            x6,
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
            config.layer_norm_eps
        );
        x8 := CASE
            WHEN setting_mlp_bias THEN
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.gate_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.gate_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.gate_proj.weight')
                )
        END;
        x9 := CASE
            WHEN setting_mlp_bias THEN
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.up_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.up_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.up_proj.weight')
                )
        END;
        x10 := CASE
            WHEN config.activation_function = 'silu' OR config.activation_function = 'swish' THEN
                public.pg_llm_swiglu(x8, x9)
            ELSE
                public.pg_llm_mul(public.pg_llm_activation(x8, config.activation_function), x9)
        END;
        x := public.pg_llm_add(
            x6,
            public.pg_llm_dropout(
                CASE
                    WHEN setting_mlp_bias THEN
                        public.pg_llm_linear(
                            x10,
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.down_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.down_proj.bias')
                        )
                    ELSE
                        public.pg_llm_linear(
                            x10,
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.down_proj.weight')
                        )
                END,
                dropout_p,
                training,
                'h.' || layer::text || '.resid_mlp'
            )
        );
    END LOOP;
    PERFORM public.pg_llm_tape_segment();
    IF targets IS NOT NULL THEN
        x := public.pg_llm_lm_head_loss(
            public.pg_llm_rmsnorm(x, public.pg_llm_param(model, 'ln_f.weight'), config.layer_norm_eps),
            public.pg_llm_param(
                model,
                CASE WHEN config.tied THEN 'wte.weight' ELSE 'lm_head.weight' END
            ),
            targets
        );
    ELSIF last_only THEN
        x := public.pg_llm_lm_head(
            public.pg_llm_last(
                public.pg_llm_rmsnorm(
                    x,
                    public.pg_llm_param(model, 'ln_f.weight'),
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
            public.pg_llm_rmsnorm(x, public.pg_llm_param(model, 'ln_f.weight'), config.layer_norm_eps),
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

COMMENT ON FUNCTION public.llm_forward_llama(text, int[], boolean, int[], double precision, boolean) IS
'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the '
'logits of the last position, [..., 1, V]. Llama and its kin: rotary positions, RMSNorm, grouped heads, '
'gated MLP (Touvron et al. 2023).';


CREATE FUNCTION public.llm_hidden_llama(
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
    x3 int[];
    x4 public.tensor;
    x5 public.tensor;
    x6 public.tensor;
    x7 public.tensor;
    x8 public.tensor;
    x9 public.tensor;
    x10 public.tensor;
    setting_n_kv_head int;
    setting_rope_theta double precision;
    setting_rope_dims int;
    setting_rope_scaling jsonb;
    setting_window int;
    setting_qk_norm boolean;
    setting_qkv_bias boolean;
    setting_o_bias boolean;
    setting_mlp_bias boolean;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_n_kv_head := (config.settings ->> 'n_kv_head')::int;
    setting_rope_theta := (config.settings ->> 'rope_theta')::double precision;
    setting_rope_dims := (config.settings ->> 'rope_dims')::int;
    setting_rope_scaling := (config.settings -> 'rope_scaling');
    setting_window := (config.settings ->> 'window')::int;
    setting_qk_norm := (config.settings ->> 'qk_norm')::boolean;
    setting_qkv_bias := (config.settings ->> 'qkv_bias')::boolean;
    setting_o_bias := (config.settings ->> 'o_bias')::boolean;
    setting_mlp_bias := (config.settings ->> 'mlp_bias')::boolean;
    n_blocks := COALESCE(n_blocks, config.n_layer);
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_dropout(
        public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
        0.0,
        false,
        'embd'
    );
    FOR layer IN 0 .. least(n_blocks, config.n_layer) - 1 LOOP
        x1 := public.pg_llm_rmsnorm(
            x,
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
            config.layer_norm_eps
        );
        x2 := CASE
            WHEN setting_qkv_bias THEN
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight')
                )
        END;
        x3 := public.pg_llm_positions(tokens);
        x4 := CASE
            WHEN setting_qkv_bias THEN
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x1,
                    public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight')
                )
        END;
        x5 := public.pg_llm_causal_attention(
            public.pg_llm_rotary(
                CASE
                    WHEN setting_qk_norm THEN
                        public.pg_llm_rmsnorm(
                            x2,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_norm.weight'),
                            config.layer_norm_eps
                        )
                    ELSE
                        x2
                END,
                config.n_head,
                setting_rope_theta,
                setting_rope_dims,
                x3,
                setting_rope_scaling
            ),
            public.pg_llm_rotary(
                CASE
                    WHEN setting_qk_norm THEN
                        public.pg_llm_rmsnorm(
                            x4,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_norm.weight'),
                            config.layer_norm_eps
                        )
                    ELSE
                        x4
                END,
                coalesce(setting_n_kv_head, config.n_head),
                setting_rope_theta,
                setting_rope_dims,
                x3,
                setting_rope_scaling
            ),
            CASE
                WHEN setting_qkv_bias THEN
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight'),
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.bias')
                    )
                ELSE
                    public.pg_llm_linear(
                        x1,
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight')
                    )
            END,
            config.n_head,
            0.0,
            false,
            'h.' || layer::text || '.attn',
            coalesce(setting_n_kv_head, config.n_head),
            setting_window
        );
        x6 := public.pg_llm_add(
            x,
            public.pg_llm_dropout(
                CASE
                    WHEN setting_o_bias THEN
                        public.pg_llm_linear(
                            x5,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.bias')
                        )
                    ELSE
                        public.pg_llm_linear(
                            x5,
                            public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight')
                        )
                END,
                0.0,
                false,
                'h.' || layer::text || '.resid_attn'
            )
        );
        x7 := public.pg_llm_rmsnorm(
            x6,
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
            config.layer_norm_eps
        );
        x8 := CASE
            WHEN setting_mlp_bias THEN
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.gate_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.gate_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.gate_proj.weight')
                )
        END;
        x9 := CASE
            WHEN setting_mlp_bias THEN
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.up_proj.weight'),
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.up_proj.bias')
                )
            ELSE
                public.pg_llm_linear(
                    x7,
                    public.pg_llm_param(model, 'h.' || layer::text || '.mlp.up_proj.weight')
                )
        END;
        x10 := CASE
            WHEN config.activation_function = 'silu' OR config.activation_function = 'swish' THEN
                public.pg_llm_swiglu(x8, x9)
            ELSE
                public.pg_llm_mul(public.pg_llm_activation(x8, config.activation_function), x9)
        END;
        x := public.pg_llm_add(
            x6,
            public.pg_llm_dropout(
                CASE
                    WHEN setting_mlp_bias THEN
                        public.pg_llm_linear(
                            x10,
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.down_proj.weight'),
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.down_proj.bias')
                        )
                    ELSE
                        public.pg_llm_linear(
                            x10,
                            public.pg_llm_param(model, 'h.' || layer::text || '.mlp.down_proj.weight')
                        )
                END,
                0.0,
                false,
                'h.' || layer::text || '.resid_mlp'
            )
        );
    END LOOP;
    IF n_blocks = config.n_layer THEN
        x := public.pg_llm_rmsnorm(x, public.pg_llm_param(model, 'ln_f.weight'), config.layer_norm_eps);
    END IF;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_hidden_llama(text, int[], int) IS
'The residual stream [..., T, D] of architecture llama after n_blocks blocks, 0 for the embeddings; after '
'the last block, the default, what the head makes logits from.';


CREATE FUNCTION public.llm_parameters_llama(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    setting_n_kv_head int;
    setting_d_head int;
    setting_qk_norm boolean;
    setting_qkv_bias boolean;
    setting_o_bias boolean;
    setting_mlp_bias boolean;
BEGIN
    config := public.llm_config(model);
    setting_n_kv_head := (config.settings ->> 'n_kv_head')::int;
    setting_d_head := (config.settings ->> 'd_head')::int;
    setting_qk_norm := (config.settings ->> 'qk_norm')::boolean;
    setting_qkv_bias := (config.settings ->> 'qkv_bias')::boolean;
    setting_o_bias := (config.settings ->> 'o_bias')::boolean;
    setting_mlp_bias := (config.settings ->> 'mlp_bias')::boolean;
    name := 'wte.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        name := 'h.' || layer::text || '.ln_1.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.q_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            config.n_head * coalesce(setting_d_head, config.d_model / config.n_head)
        ]::int[]; RETURN NEXT;
        IF setting_qkv_bias THEN
            name := 'h.' || layer::text || '.attn.q_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[
                config.n_head * coalesce(setting_d_head, config.d_model / config.n_head)
            ]::int[]; RETURN NEXT;
        END IF;
        name := 'h.' || layer::text || '.attn.k_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            coalesce(setting_n_kv_head, config.n_head) * coalesce(setting_d_head, config.d_model / config.n_head)
        ]::int[]; RETURN NEXT;
        IF setting_qkv_bias THEN
            name := 'h.' || layer::text || '.attn.k_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[
                coalesce(setting_n_kv_head, config.n_head) * coalesce(setting_d_head, config.d_model / config.n_head)
            ]::int[]; RETURN NEXT;
        END IF;
        name := 'h.' || layer::text || '.attn.v_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            coalesce(setting_n_kv_head, config.n_head) * coalesce(setting_d_head, config.d_model / config.n_head)
        ]::int[]; RETURN NEXT;
        IF setting_qkv_bias THEN
            name := 'h.' || layer::text || '.attn.v_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[
                coalesce(setting_n_kv_head, config.n_head) * coalesce(setting_d_head, config.d_model / config.n_head)
            ]::int[]; RETURN NEXT;
        END IF;
        IF setting_qk_norm THEN
            name := 'h.' || layer::text || '.attn.q_norm.weight';
            init := 'ones'; std := NULL;
            shape := ARRAY[
                coalesce(setting_d_head, config.d_model / config.n_head)
            ]::int[]; RETURN NEXT;
        END IF;
        IF setting_qk_norm THEN
            name := 'h.' || layer::text || '.attn.k_norm.weight';
            init := 'ones'; std := NULL;
            shape := ARRAY[
                coalesce(setting_d_head, config.d_model / config.n_head)
            ]::int[]; RETURN NEXT;
        END IF;
        name := 'h.' || layer::text || '.attn.o_proj.weight';
        init := 'residual'; std := 0.02 / sqrt(2.0 * config.n_layer);
        shape := ARRAY[
            config.n_head * coalesce(setting_d_head, config.d_model / config.n_head),
            config.d_model
        ]::int[]; RETURN NEXT;
        IF setting_o_bias THEN
            name := 'h.' || layer::text || '.attn.o_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        END IF;
        name := 'h.' || layer::text || '.ln_2.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.gate_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            COALESCE(config.d_ff, 4 * config.d_model)
        ]::int[]; RETURN NEXT;
        IF setting_mlp_bias THEN
            name := 'h.' || layer::text || '.mlp.gate_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[COALESCE(config.d_ff, 4 * config.d_model)]::int[]; RETURN NEXT;
        END IF;
        name := 'h.' || layer::text || '.mlp.up_proj.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            config.d_model,
            COALESCE(config.d_ff, 4 * config.d_model)
        ]::int[]; RETURN NEXT;
        IF setting_mlp_bias THEN
            name := 'h.' || layer::text || '.mlp.up_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[COALESCE(config.d_ff, 4 * config.d_model)]::int[]; RETURN NEXT;
        END IF;
        name := 'h.' || layer::text || '.mlp.down_proj.weight';
        init := 'residual'; std := 0.02 / sqrt(2.0 * config.n_layer);
        shape := ARRAY[
            COALESCE(config.d_ff, 4 * config.d_model),
            config.d_model
        ]::int[]; RETURN NEXT;
        IF setting_mlp_bias THEN
            name := 'h.' || layer::text || '.mlp.down_proj.bias';
            init := 'zeros'; std := NULL;
            shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        END IF;
    END LOOP;
    name := 'ln_f.weight';
    init := 'ones'; std := NULL;
    shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    IF NOT config.tied THEN
        name := 'lm_head.weight';
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_llama(text) IS
'Name, shape and initialisation of every parameter of a model of architecture llama. init: normal or '
'residual with standard deviation std, zeros, ones.';
