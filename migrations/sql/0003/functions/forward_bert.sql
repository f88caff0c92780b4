-- Compiled from the trees of llm_sql.graph by `python -m llm_sql.graph`; change them there.

CREATE FUNCTION public.llm_embed_bert(
    model text,
    tokens int[],
    lengths int[],
    training boolean DEFAULT false,
    dropout_p double precision DEFAULT 0.1
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    pinned boolean;
    x public.tensor;
    x1 public.tensor;
    setting_pooling text;
    setting_normalize boolean;
BEGIN
    IF model IS NULL OR tokens IS NULL OR lengths IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    setting_pooling := (config.settings ->> 'pooling');
    setting_normalize := (config.settings ->> 'normalize')::boolean;
    -- A caller that computes many passes pins the version once for all of them.
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_dropout(
        public.pg_llm_layernorm(
            public.pg_llm_add(
                public.pg_llm_add(
                    public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
                    public.pg_llm_slice(public.pg_llm_param(model, 'wtt.weight'), 0, 0, 1)
                ),
                public.pg_llm_embedding(
                    public.pg_llm_param(model, 'wpe.weight'),
                    public.pg_llm_positions(tokens, lengths)
                )
            ),
            public.pg_llm_param(model, 'ln_embd.weight'),
            public.pg_llm_param(model, 'ln_embd.bias'),
            config.layer_norm_eps
        ),
        dropout_p,
        training,
        'embd'
    );
    FOR layer IN 0 .. config.n_layer - 1 LOOP
        PERFORM public.pg_llm_tape_segment();
        x1 := public.pg_llm_layernorm(
            public.pg_llm_add(
                x,
                public.pg_llm_dropout(
                    public.pg_llm_linear(
                        public.pg_llm_bidirectional_attention(
                            public.pg_llm_linear(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.bias')
                            ),
                            public.pg_llm_linear(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.bias')
                            ),
                            public.pg_llm_linear(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.bias')
                            ),
                            config.n_head,
                            dropout_p,
                            training,
                            'h.' || layer::text || '.attn',
                            lengths
                        ),
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight'),
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.bias')
                    ),
                    dropout_p,
                    training,
                    'h.' || layer::text || '.resid_attn'
                )
            ),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
            config.layer_norm_eps
        );
        x := public.pg_llm_layernorm(
            public.pg_llm_add(
                x1,
                public.pg_llm_dropout(
                    public.pg_llm_linear(
                        public.pg_llm_activation(
                            public.pg_llm_linear(
                                x1,
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
            ),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
            config.layer_norm_eps
        );
    END LOOP;
    PERFORM public.pg_llm_tape_segment();
    x := public.pg_llm_l2_normalize(public.pg_llm_pool(x, lengths, setting_pooling), setting_normalize);

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_bert(text, int[], int[], boolean, double precision) IS
'Embeddings [B, D] of B sequences that are laid end to end in tokens; lengths has the number of tokens of '
'each. BERT: a sentence encoder with LayerNorm after each sum, learned positions (Devlin et al. 2018).';


CREATE FUNCTION public.llm_forward_bert(
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
    width int;
    lengths int[];
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM public.llm_require(
        last_only IS NOT TRUE,
        format('model "%s" is an encoder: it has no logits of a last position', model)
    );
    IF targets IS NOT NULL THEN
        RETURN public.llm_contrastive_loss(model, tokens, targets, training, dropout_p);
    END IF;
    PERFORM public.llm_require(
        array_ndims(tokens) BETWEEN 1 AND 2,
        format('tokens must be one sequence or a batch of them, got shape %s', public.llm_shape_text(tokens))
    );
    width := array_length(tokens, array_ndims(tokens));
    lengths := array_fill(width, ARRAY[cardinality(tokens) / width]);
    tokens := ARRAY(SELECT t.id FROM unnest(tokens) t (id));
    RETURN public.llm_embed_bert(model, tokens, lengths, training, dropout_p);
END;
$function$;

COMMENT ON FUNCTION public.llm_forward_bert(text, int[], boolean, int[], double precision, boolean) IS
'Embeddings [B, D] of int[] or int[][] tokens; with targets, which number each row''s sequences, their '
'contrastive loss, 0-d. BERT: a sentence encoder with LayerNorm after each sum, learned positions (Devlin '
'et al. 2018).';


CREATE FUNCTION public.llm_hidden_bert(
    model text,
    tokens int[],
    n_blocks int DEFAULT NULL
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    is_batch boolean;
    width int;
    lengths int[];
    config public.llm_model_config;
    pinned boolean;
    x public.tensor;
    x1 public.tensor;
BEGIN
    IF model IS NULL OR tokens IS NULL THEN
        RETURN NULL;
    END IF;
    is_batch := array_ndims(tokens) = 2;
    PERFORM public.llm_require(
        array_ndims(tokens) BETWEEN 1 AND 2,
        format('tokens must be one sequence or a batch of them, got shape %s', public.llm_shape_text(tokens))
    );
    width := array_length(tokens, array_ndims(tokens));
    lengths := array_fill(width, ARRAY[cardinality(tokens) / width]);
    tokens := ARRAY(SELECT t.id FROM unnest(tokens) t (id));
    config := public.llm_config(model);
    n_blocks := COALESCE(n_blocks, config.n_layer);
    pinned := public.pg_llm_arena_pinned(model);
    IF NOT pinned THEN
        PERFORM public.llm_pin(model);
    END IF;

    x := public.pg_llm_dropout(
        public.pg_llm_layernorm(
            public.pg_llm_add(
                public.pg_llm_add(
                    public.pg_llm_embedding(public.pg_llm_param(model, 'wte.weight'), tokens),
                    public.pg_llm_slice(public.pg_llm_param(model, 'wtt.weight'), 0, 0, 1)
                ),
                public.pg_llm_embedding(
                    public.pg_llm_param(model, 'wpe.weight'),
                    public.pg_llm_positions(tokens, lengths)
                )
            ),
            public.pg_llm_param(model, 'ln_embd.weight'),
            public.pg_llm_param(model, 'ln_embd.bias'),
            config.layer_norm_eps
        ),
        0.0,
        false,
        'embd'
    );
    FOR layer IN 0 .. least(n_blocks, config.n_layer) - 1 LOOP
        x1 := public.pg_llm_layernorm(
            public.pg_llm_add(
                x,
                public.pg_llm_dropout(
                    public.pg_llm_linear(
                        public.pg_llm_bidirectional_attention(
                            public.pg_llm_linear(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.q_proj.bias')
                            ),
                            public.pg_llm_linear(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.k_proj.bias')
                            ),
                            public.pg_llm_linear(
                                x,
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.weight'),
                                public.pg_llm_param(model, 'h.' || layer::text || '.attn.v_proj.bias')
                            ),
                            config.n_head,
                            0.0,
                            false,
                            'h.' || layer::text || '.attn',
                            lengths
                        ),
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.weight'),
                        public.pg_llm_param(model, 'h.' || layer::text || '.attn.o_proj.bias')
                    ),
                    0.0,
                    false,
                    'h.' || layer::text || '.resid_attn'
                )
            ),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.weight'),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_1.bias'),
            config.layer_norm_eps
        );
        x := public.pg_llm_layernorm(
            public.pg_llm_add(
                x1,
                public.pg_llm_dropout(
                    public.pg_llm_linear(
                        public.pg_llm_activation(
                            public.pg_llm_linear(
                                x1,
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
            ),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.weight'),
            public.pg_llm_param(model, 'h.' || layer::text || '.ln_2.bias'),
            config.layer_norm_eps
        );
    END LOOP;

    IF NOT pinned THEN
        PERFORM public.pg_llm_arena_close(model);
    END IF;
    IF is_batch THEN
        RETURN public.pg_llm_reshape(x, ARRAY[cardinality(lengths), width, config.d_model]);
    END IF;
    RETURN x;
END;
$function$;

COMMENT ON FUNCTION public.llm_hidden_bert(text, int[], int) IS
'The residual stream [..., T, D] of architecture bert after n_blocks blocks, 0 for the embeddings; after '
'the last block, the default, what the head makes embeddings from.';


CREATE FUNCTION public.llm_parameters_bert(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    setting_type_vocab int;
BEGIN
    config := public.llm_config(model);
    setting_type_vocab := (config.settings ->> 'type_vocab')::int;
    name := 'wte.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[config.vocab, config.d_model]::int[]; RETURN NEXT;
    name := 'wpe.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[config.n_positions, config.d_model]::int[]; RETURN NEXT;
    name := 'wtt.weight';
    init := 'normal'; std := 0.02;
    shape := ARRAY[setting_type_vocab, config.d_model]::int[]; RETURN NEXT;
    name := 'ln_embd.weight';
    init := 'ones'; std := NULL;
    shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    name := 'ln_embd.bias';
    init := 'zeros'; std := NULL;
    shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    FOR layer IN 0 .. config.n_layer - 1 LOOP
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
        init := 'normal'; std := 0.02;
        shape := ARRAY[config.d_model, config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.attn.o_proj.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_1.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_1.bias';
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
        init := 'normal'; std := 0.02;
        shape := ARRAY[
            COALESCE(config.d_ff, 4 * config.d_model),
            config.d_model
        ]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.mlp.fc2.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_2.weight';
        init := 'ones'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
        name := 'h.' || layer::text || '.ln_2.bias';
        init := 'zeros'; std := NULL;
        shape := ARRAY[config.d_model]::int[]; RETURN NEXT;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_bert(text) IS
'Name, shape and initialisation of every parameter of a model of architecture bert. init: normal or '
'residual with standard deviation std, zeros, ones.';
