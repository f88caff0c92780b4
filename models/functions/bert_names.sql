-- Hugging Face's names of BERT's tensors, for files of encoders.

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


CREATE FUNCTION public.llm_has_bert_names(model text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN EXISTS (
        SELECT FROM public.llm_model_config c
        INNER JOIN public.llm_arch a ON a.arch = c.arch
        WHERE c.model = llm_has_bert_names.model AND a.kind = 'encoder'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_has_bert_names(text) IS
'Whether files hold the model''s tensors under BERT''s names: of an encoder, not of a decoder.';
