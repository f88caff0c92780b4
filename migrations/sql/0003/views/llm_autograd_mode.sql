-- Whether this session records its passes: one row over the session's state, which every kind of write changes.

CREATE FUNCTION public.llm_autograd_mode_write() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_llm, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM public.pg_llm_set_recording(false);
        RETURN OLD;
    END IF;
    IF NEW.flag IS NULL THEN
        RAISE EXCEPTION 'null value in column "flag" of view "llm_autograd_mode"'
            USING ERRCODE = 'not_null_violation', HINT = 'Recording is either on (true) or off (false).';
    END IF;
    PERFORM public.pg_llm_set_recording(NEW.flag);
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION public.llm_autograd_mode_write() IS
'INSERT and UPDATE set the flag, DELETE turns recording off';

CREATE VIEW public.llm_autograd_mode WITH (security_invoker = true) AS
SELECT public.pg_llm_recording() AS flag;

COMMENT ON VIEW public.llm_autograd_mode IS
'whether this session records its passes; always one row, which INSERT, UPDATE and DELETE change';

CREATE TRIGGER llm_autograd_mode_write
INSTEAD OF INSERT OR UPDATE OR DELETE ON public.llm_autograd_mode
FOR EACH ROW EXECUTE FUNCTION public.llm_autograd_mode_write();
