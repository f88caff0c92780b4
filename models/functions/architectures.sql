-- What each architecture's parameters are called, their shapes, and how they begin.

CREATE FUNCTION public.llm_parameters_gpt2(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    config public.llm_model_config := public.llm_config(model);
    d int := config.d_model;
    ff int := COALESCE(config.d_ff, 4 * config.d_model);
BEGIN
    RETURN QUERY
    WITH tensor (name, shape, init) AS (
        SELECT 'wte.weight', ARRAY[config.vocab, d], 'normal'
        UNION ALL
        SELECT 'wpe.weight', ARRAY[config.n_positions, d], 'normal'
        UNION ALL
        SELECT format('h.%s.%s', l.n, t.name), t.shape, t.init
        FROM generate_series(0, config.n_layer - 1) l (n)
        CROSS JOIN (
            VALUES
            (1, 'ln_1.weight', ARRAY[d], 'ones'),
            (2, 'ln_1.bias', ARRAY[d], 'zeros'),
            (3, 'attn.c_attn.weight', ARRAY[d, 3 * d], 'normal'),
            (4, 'attn.c_attn.bias', ARRAY[3 * d], 'zeros'),
            (5, 'attn.c_proj.weight', ARRAY[d, d], 'residual'),
            (6, 'attn.c_proj.bias', ARRAY[d], 'zeros'),
            (7, 'ln_2.weight', ARRAY[d], 'ones'),
            (8, 'ln_2.bias', ARRAY[d], 'zeros'),
            (9, 'mlp.c_fc.weight', ARRAY[d, ff], 'normal'),
            (10, 'mlp.c_fc.bias', ARRAY[ff], 'zeros'),
            (11, 'mlp.c_proj.weight', ARRAY[ff, d], 'residual'),
            (12, 'mlp.c_proj.bias', ARRAY[d], 'zeros')
        ) t (position, name, shape, init)
        UNION ALL
        SELECT 'ln_f.weight', ARRAY[d], 'ones'
        UNION ALL
        SELECT 'ln_f.bias', ARRAY[d], 'zeros'
        UNION ALL
        SELECT 'lm_head.weight', ARRAY[config.vocab, d], 'normal' WHERE NOT config.tied
    )
    SELECT t.name, t.shape, t.init, CASE t.init
        WHEN 'normal' THEN 0.02
        WHEN 'residual' THEN 0.02 / sqrt(2.0 * config.n_layer)
    END::double precision
    FROM tensor t;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_gpt2(text) IS
'Name, shape and initialisation (normal and residual with their standard deviation, zeros, ones) of every parameter '
'of a GPT-2, under Hugging Face''s names; linear weights are [in, out]. Initialisation: Radford et al. 2019, '
'section 2.3: residual projections are scaled by 1/sqrt(2 n_layer).';


CREATE FUNCTION public.llm_parameters_gpt3(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN QUERY SELECT p.name, p.shape, p.init, p.std FROM public.llm_parameters_gpt2(model) p;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_gpt3(text) IS
'Name, shape and initialisation of every parameter of a GPT-3, which are those of GPT-2 (Brown et al. 2020, section '
'2.1).';


CREATE FUNCTION public.llm_parameters_microgpt(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    config public.llm_model_config := public.llm_config(model);
    d int := config.d_model;
    ff int := COALESCE(config.d_ff, 4 * config.d_model);
BEGIN
    RETURN QUERY
    SELECT s.name, s.shape, 'normal', 0.08::double precision
    FROM (
        VALUES
        ('wte.weight', ARRAY[config.vocab, d]),
        ('wpe.weight', ARRAY[config.n_positions, d]),
        ('lm_head.weight', ARRAY[config.vocab, d])
    ) s (name, shape)
    UNION ALL
    SELECT format('h.%s.%s', l.n, t.name), t.shape, 'normal', 0.08::double precision
    FROM generate_series(0, config.n_layer - 1) l (n)
    CROSS JOIN (
        VALUES
        ('attn.q_proj.weight', ARRAY[d, d]),
        ('attn.k_proj.weight', ARRAY[d, d]),
        ('attn.v_proj.weight', ARRAY[d, d]),
        ('attn.o_proj.weight', ARRAY[d, d]),
        ('mlp.fc1.weight', ARRAY[d, ff]),
        ('mlp.fc2.weight', ARRAY[ff, d])
    ) t (name, shape);
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_microgpt(text) IS
'Name, shape and initialisation of every parameter of a microgpt: no biases, no gains, an untied head, everything '
'normal with standard deviation 0.08 (Karpathy, microgpt, 2026).';


CREATE FUNCTION public.llm_parameters(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    lister text;
BEGIN
    SELECT a.parameters INTO STRICT lister
    FROM public.llm_arch a
    WHERE a.arch = (public.llm_config(llm_parameters.model)).arch;
    PERFORM public.pg_llm_use_callers_search_path();
    RETURN QUERY EXECUTE
        pg_catalog.format('SELECT p.name, p.shape, p.init, p.std FROM %s($1) p', lister::pg_catalog.regproc)
    USING model;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters(text) IS
'Name, shape and initialisation of every parameter of the model, from the function that its architecture names in '
'llm_arch. init: normal or residual with standard deviation std, zeros, ones.';
