-- What a model's parameters are called, their shapes, and how they begin.

CREATE FUNCTION public.llm_parameters(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    lister CONSTANT text := (public.llm_registered_arch(model)).parameters;
BEGIN
    PERFORM public.pg_llm_use_callers_search_path();
    RETURN QUERY EXECUTE
        pg_catalog.format('SELECT p.name, p.shape, p.init, p.std FROM %s($1) p', lister::pg_catalog.regproc)
    USING model;
END;
$function$;

COMMENT ON FUNCTION public.llm_parameters(text) IS
'Name, shape and initialisation of every parameter of the model, from the function that its architecture names in '
'llm_arch. init: normal or residual with standard deviation std, zeros, ones.';
