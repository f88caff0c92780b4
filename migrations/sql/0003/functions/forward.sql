-- The forward pass of any model: the function its architecture names in llm_arch.

CREATE FUNCTION public.llm_forward(
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
    forward text := (
        SELECT a.forward
        FROM public.llm_model_config c
        INNER JOIN public.llm_arch a ON a.arch = c.arch
        WHERE c.model = llm_forward.model
    );
    result public.tensor;
BEGIN
    CASE forward
        WHEN 'public.llm_forward_gpt2' THEN
            RETURN public.llm_forward_gpt2(model, tokens, training, targets, dropout_p, last_only);
        WHEN 'public.llm_forward_gpt3' THEN
            RETURN public.llm_forward_gpt3(model, tokens, training, targets, dropout_p, last_only);
        WHEN 'public.llm_forward_microgpt' THEN
            RETURN public.llm_forward_microgpt(model, tokens, training, targets, dropout_p, last_only);
        WHEN 'public.llm_forward_bert' THEN
            RETURN public.llm_forward_bert(model, tokens, training, targets, dropout_p, last_only);
        WHEN 'public.llm_forward_llama' THEN
            RETURN public.llm_forward_llama(model, tokens, training, targets, dropout_p, last_only);
        WHEN 'public.llm_forward_neox' THEN
            RETURN public.llm_forward_neox(model, tokens, training, targets, dropout_p, last_only);
        WHEN 'public.llm_forward_opt' THEN
            RETURN public.llm_forward_opt(model, tokens, training, targets, dropout_p, last_only);
        ELSE
            forward := (public.llm_registered_arch(model)).forward;
            PERFORM public.pg_llm_use_callers_search_path();
            EXECUTE pg_catalog.format('SELECT %s($1, $2, $3, $4, $5, $6)', forward::pg_catalog.regproc) INTO result
            USING model, tokens, training, targets, dropout_p, last_only;
            RETURN result;
    END CASE;
END;
$function$;

COMMENT ON FUNCTION public.llm_forward(text, int[], boolean, int[], double precision, boolean) IS
'Logits [T, vocab], or [B, T, vocab] for a batch [B, T] of sequences. With targets, the mean loss over the targets '
'that are not below 0, a single number. last_only: logits of the last position only. Dropout applies only with '
'training.';
