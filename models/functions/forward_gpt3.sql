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
BEGIN
    RETURN public.llm_forward_gpt2(model, tokens, training, targets, dropout_p, last_only);
END;
$function$;

COMMENT ON FUNCTION public.llm_forward_gpt3(text, int[], boolean, int[], double precision, boolean) IS
'Logits [..., T, V] of int[] or int[][] tokens; with targets their mean loss, 0-d; with last_only the '
'logits of the last position, [..., 1, V]. GPT-3: the graph of GPT-2, every layer dense (Brown et al. '
'2020).';


CREATE FUNCTION public.llm_hidden_gpt3(
    model text,
    tokens int[],
    n_blocks int DEFAULT NULL
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_hidden_gpt2(model, tokens, n_blocks);
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
BEGIN
    RETURN QUERY SELECT p.name, p.shape, p.init, p.std FROM public.llm_parameters_gpt2(model) p;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters_gpt3(text) IS
'Name, shape and initialisation of every parameter of a model of architecture gpt3. init: normal or '
'residual with standard deviation std, zeros, ones.';
