-- Hugging Face's names of tensors, for files of architectures whose parameters have others: BERT, Llama, GPT-NeoX, OPT.

CREATE FUNCTION public.llm_bert_name(parameter text, OUT name text, OUT transposed boolean)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    block CONSTANT text[] := regexp_match(parameter, '^h[.]([0-9]+)[.](.+)[.](weight|bias)$');
    part text;
BEGIN
    transposed := false;
    IF block IS NULL THEN
        name := CASE parameter
            WHEN 'wte.weight' THEN 'embeddings.word_embeddings.weight'
            WHEN 'wpe.weight' THEN 'embeddings.position_embeddings.weight'
            WHEN 'wtt.weight' THEN 'embeddings.token_type_embeddings.weight'
            WHEN 'ln_embd.weight' THEN 'embeddings.LayerNorm.weight'
            WHEN 'ln_embd.bias' THEN 'embeddings.LayerNorm.bias'
        END;
        RETURN;
    END IF;
    part := CASE block[2]
        WHEN 'attn.q_proj' THEN 'attention.self.query'
        WHEN 'attn.k_proj' THEN 'attention.self.key'
        WHEN 'attn.v_proj' THEN 'attention.self.value'
        WHEN 'attn.o_proj' THEN 'attention.output.dense'
        WHEN 'ln_1' THEN 'attention.output.LayerNorm'
        WHEN 'mlp.fc1' THEN 'intermediate.dense'
        WHEN 'mlp.fc2' THEN 'output.dense'
        WHEN 'ln_2' THEN 'output.LayerNorm'
    END;
    name := format('encoder.layer.%s.', block[1]) || part || '.' || block[3];
    -- PyTorch's Linear layers are [out, in].
    transposed := COALESCE(block[3] = 'weight' AND part !~ 'LayerNorm$', false);
END;
$function$;

COMMENT ON FUNCTION public.llm_bert_name(text) IS
'The name that a parameter of architecture bert has in Hugging Face''s files, and whether it is [out, in] there; NULL '
'for a name that is none of its parameters''.';


CREATE FUNCTION public.llm_llama_name(parameter text, OUT name text, OUT how text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    block CONSTANT text[] := regexp_match(parameter, '^h[.]([0-9]+)[.](.+)[.](weight|bias)$');
    part text;
BEGIN
    how := 'same';
    IF block IS NULL THEN
        name := CASE parameter
            WHEN 'wte.weight' THEN 'model.embed_tokens.weight'
            WHEN 'ln_f.weight' THEN 'model.norm.weight'
            WHEN 'lm_head.weight' THEN 'lm_head.weight'
        END;
        RETURN;
    END IF;
    part := CASE block[2]
        WHEN 'ln_1' THEN 'input_layernorm'
        WHEN 'attn.q_proj' THEN 'self_attn.q_proj'
        WHEN 'attn.k_proj' THEN 'self_attn.k_proj'
        WHEN 'attn.v_proj' THEN 'self_attn.v_proj'
        WHEN 'attn.o_proj' THEN 'self_attn.o_proj'
        WHEN 'attn.q_norm' THEN 'self_attn.q_norm'
        WHEN 'attn.k_norm' THEN 'self_attn.k_norm'
        WHEN 'ln_2' THEN 'post_attention_layernorm'
        WHEN 'mlp.gate_proj' THEN 'mlp.gate_proj'
        WHEN 'mlp.up_proj' THEN 'mlp.up_proj'
        WHEN 'mlp.down_proj' THEN 'mlp.down_proj'
    END;
    name := format('model.layers.%s.', block[1]) || part || '.' || block[3];
    IF block[3] = 'weight' AND part LIKE '%_proj' THEN
        how := 'transposed';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_llama_name(text) IS
'The name that a parameter of architecture llama has in Hugging Face''s files of Llama, Mistral, Qwen2 and Qwen3, and '
'how it comes out of that tensor (llm_hub_name).';


CREATE FUNCTION public.llm_neox_name(parameter text, OUT name text, OUT how text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    block CONSTANT text[] := regexp_match(parameter, '^h[.]([0-9]+)[.](.+)[.](weight|bias)$');
    part text;
BEGIN
    how := 'same';
    IF block IS NULL THEN
        name := CASE parameter
            WHEN 'wte.weight' THEN 'gpt_neox.embed_in.weight'
            WHEN 'ln_f.weight' THEN 'gpt_neox.final_layer_norm.weight'
            WHEN 'ln_f.bias' THEN 'gpt_neox.final_layer_norm.bias'
            WHEN 'lm_head.weight' THEN 'embed_out.weight'
        END;
        RETURN;
    END IF;
    part := CASE block[2]
        WHEN 'ln_1' THEN 'input_layernorm'
        WHEN 'attn.q_proj' THEN 'attention.query_key_value'
        WHEN 'attn.k_proj' THEN 'attention.query_key_value'
        WHEN 'attn.v_proj' THEN 'attention.query_key_value'
        WHEN 'attn.o_proj' THEN 'attention.dense'
        WHEN 'ln_2' THEN 'post_attention_layernorm'
        WHEN 'mlp.fc1' THEN 'mlp.dense_h_to_4h'
        WHEN 'mlp.fc2' THEN 'mlp.dense_4h_to_h'
    END;
    name := format('gpt_neox.layers.%s.', block[1]) || part || '.' || block[3];
    how := CASE block[2]
        WHEN 'attn.q_proj' THEN 'part 1'
        WHEN 'attn.k_proj' THEN 'part 2'
        WHEN 'attn.v_proj' THEN 'part 3'
        ELSE 'same'
    END;
    IF block[3] = 'weight' AND part NOT LIKE '%layernorm' THEN
        how := CASE how WHEN 'same' THEN 'transposed' ELSE how || ' transposed' END;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_neox_name(text) IS
'The name that a parameter of architecture neox has in Hugging Face''s files of GPT-NeoX, and how it comes out of that '
'tensor (llm_hub_name).';


CREATE FUNCTION public.llm_opt_name(parameter text, OUT name text, OUT how text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    block CONSTANT text[] := regexp_match(parameter, '^h[.]([0-9]+)[.](.+)[.](weight|bias)$');
    part text;
BEGIN
    how := 'same';
    IF block IS NULL THEN
        name := CASE parameter
            WHEN 'wte.weight' THEN 'model.decoder.embed_tokens.weight'
            WHEN 'wpe.weight' THEN 'model.decoder.embed_positions.weight'
            WHEN 'project_in.weight' THEN 'model.decoder.project_in.weight'
            WHEN 'project_out.weight' THEN 'model.decoder.project_out.weight'
            WHEN 'ln_f.weight' THEN 'model.decoder.final_layer_norm.weight'
            WHEN 'ln_f.bias' THEN 'model.decoder.final_layer_norm.bias'
            WHEN 'lm_head.weight' THEN 'lm_head.weight'
        END;
        how := CASE
            WHEN parameter = 'wpe.weight' THEN 'after 2'
            WHEN parameter LIKE 'project%' THEN 'transposed'
            ELSE how
        END;
        RETURN;
    END IF;
    part := CASE block[2]
        WHEN 'ln_1' THEN 'self_attn_layer_norm'
        WHEN 'attn.q_proj' THEN 'self_attn.q_proj'
        WHEN 'attn.k_proj' THEN 'self_attn.k_proj'
        WHEN 'attn.v_proj' THEN 'self_attn.v_proj'
        WHEN 'attn.o_proj' THEN 'self_attn.out_proj'
        WHEN 'ln_2' THEN 'final_layer_norm'
        WHEN 'mlp.fc1' THEN 'fc1'
        WHEN 'mlp.fc2' THEN 'fc2'
    END;
    name := format('model.decoder.layers.%s.', block[1]) || part || '.' || block[3];
    IF block[3] = 'weight' AND part NOT LIKE '%layer_norm' THEN
        how := 'transposed';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_opt_name(text) IS
'The name that a parameter of architecture opt has in Hugging Face''s files of OPT, and how it comes out of that '
'tensor (llm_hub_name).';


CREATE FUNCTION public.llm_hub_family(model text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (
        SELECT CASE WHEN a.kind = 'encoder' THEN 'bert' WHEN c.arch IN ('llama', 'neox', 'opt') THEN c.arch END
        FROM public.llm_model_config c
        INNER JOIN public.llm_arch a ON a.arch = c.arch
        WHERE c.model = llm_hub_family.model
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_hub_family(text) IS
'Whose names the tensors of the model have in Hugging Face''s files: bert (of encoders), llama, neox or opt; NULL: its '
'parameters have GPT-2''s, or names of their own.';


CREATE FUNCTION public.llm_hub_name(family text, parameter text, OUT name text, OUT how text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Of an adapter: the matrix, and which of its factors.
    factor CONSTANT text[] := regexp_match(parameter, '^(.+[.]weight)[.]lora_([ab])$');
    found record;
BEGIN
    IF factor IS NOT NULL THEN
        found := public.llm_hub_name(family, factor[1]);
        -- Of one tensor for three, PEFT has one pair of factors.
        IF found.how LIKE 'part %' THEN
            RETURN;
        END IF;
        name := format(
            'base_model.model.%s.lora_%s.weight',
            regexp_replace(COALESCE(found.name, 'transformer.' || factor[1]), '[.]weight$', ''), upper(factor[2])
        );
        how := 'transposed';
        RETURN;
    END IF;
    CASE family
        WHEN 'llama' THEN
            found := public.llm_llama_name(parameter);
        WHEN 'neox' THEN
            found := public.llm_neox_name(parameter);
        WHEN 'opt' THEN
            found := public.llm_opt_name(parameter);
        WHEN 'bert' THEN
            SELECT b.name, CASE WHEN b.transposed THEN 'transposed' ELSE 'same' END AS how INTO found
            FROM public.llm_bert_name(parameter) b;
        ELSE
            RETURN;
    END CASE;
    name := found.name;
    how := CASE WHEN name IS NOT NULL THEN found.how END;
END;
$function$;

COMMENT ON FUNCTION public.llm_hub_name(text, text) IS
'The name that a parameter has in Hugging Face''s files of a family (llm_hub_family), and how it comes out of that '
'tensor: same, transposed (it is [out, in] there), part N (1 queries, 2 keys, 3 values) of a tensor that has all three '
'head by head, perhaps transposed then, after 2 (without the first two rows). NULLs: none of the family''s parameters. '
'Of the factors of an adapter the name is PEFT''s.';
