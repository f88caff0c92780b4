-- What a model's parameters are called, their shapes, and how they begin.

CREATE FUNCTION public.llm_parameters(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    lister CONSTANT text := (public.llm_registered_arch(model)).parameters;
    adapter public.llm_adapter;
BEGIN
    SELECT a.* INTO adapter FROM public.llm_adapter a WHERE a.model = llm_parameters.model;
    PERFORM public.pg_llm_use_callers_search_path();
    IF adapter.model IS NOT NULL THEN
        RETURN QUERY EXECUTE pg_catalog.format(
            'SELECT l.name, l.shape, l.init, l.std FROM %s($1) p '
            'CROSS JOIN LATERAL public.llm_adapter_parameters(p.name, p.shape, $2, $3) l', lister::pg_catalog.regproc
        )
        USING model, adapter.rank, adapter.targets;
        RETURN;
    END IF;
    RETURN QUERY EXECUTE
        pg_catalog.format('SELECT p.name, p.shape, p.init, p.std FROM %s($1) p', lister::pg_catalog.regproc)
    USING model;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters(text) IS
'Name, shape and initialisation of every parameter of the model, from the function that its architecture names in '
'llm_arch; of an adapter, its factors. init: normal or residual with standard deviation std, uniform between -std and '
'std, zeros, ones.';
