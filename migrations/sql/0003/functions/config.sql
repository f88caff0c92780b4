-- A model's configuration: looking it up, holding arguments against it, the default model, one trainer at a time.

CREATE FUNCTION public.llm_require(
    condition boolean,
    message text,
    hint text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF condition THEN
        RETURN;
    END IF;
    -- An empty hint would be shown as one.
    IF hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message, HINT = hint;
END;
$function$;

COMMENT ON FUNCTION public.llm_require(boolean, text, text) IS
'Raises message as 22023 unless condition is true. NULL counts as false.';


CREATE FUNCTION public.llm_require_argument(name text, given boolean) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF given IS NOT TRUE THEN
        RAISE EXCEPTION '% must not be NULL', name USING ERRCODE = 'null_value_not_allowed';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_argument(text, boolean) IS
'Raises 22004 with the argument''s name if the argument was not given: llm_require_argument(''seed'', seed IS NOT '
'NULL).';


CREATE FUNCTION public.llm_raise(code text, message text, detail text, hint text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('code', code IS NOT NULL);
    PERFORM public.llm_require_argument('message', message IS NOT NULL);
    -- An empty detail or hint would be shown as one.
    CASE
        WHEN detail <> '' AND hint <> '' THEN
            RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, DETAIL = detail, HINT = hint;
        WHEN detail <> '' THEN
            RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, DETAIL = detail;
        WHEN hint <> '' THEN
            RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, HINT = hint;
        ELSE
            RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message;
    END CASE;
END;
$function$;

COMMENT ON FUNCTION public.llm_raise(text, text, text, text) IS
'Raises a caught error again, from the fields of GET STACKED DIAGNOSTICS.';


CREATE FUNCTION public.llm_exact_number(number double precision) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
SET extra_float_digits = 1
AS $function$
BEGIN
    RETURN to_jsonb(number);
END;
$function$;

COMMENT ON FUNCTION public.llm_exact_number(double precision) IS
'The number as JSON, with enough digits to restore it exactly whatever extra_float_digits is.';


CREATE FUNCTION public.llm_config(model text) RETURNS public.llm_model_config
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    declared jsonb;
BEGIN
    SELECT c.* INTO config FROM public.llm_model_config c WHERE c.model = llm_config.model;
    IF NOT FOUND THEN
        RETURN public.llm_stored_config(model);
    END IF;
    -- Nothing is looked up for those that know no settings: this runs in every pass.
    IF config.arch IN ('gpt2', 'microgpt') AND config.settings = '{}' THEN
        RETURN config;
    END IF;
    SELECT a.settings INTO declared FROM public.llm_arch a WHERE a.arch = config.arch;
    -- Without its architecture, as replication can leave it, a model computes nothing: llm_registered_arch tells.
    IF FOUND AND (declared <> '{}' OR config.settings <> '{}') THEN
        config.settings := public.llm_settings(config, declared);
    END IF;
    RETURN config;
END;
$function$;

COMMENT ON FUNCTION public.llm_config(text) IS
'The model''s row of llm_model_config, its settings checked and those it lacks filled in. 42704: no such model; 55000: '
'a subscription is still copying it; 22023: a setting that its architecture does not know or allow.';


CREATE FUNCTION public.llm_stored_config(model text) RETURNS public.llm_model_config
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
BEGIN
    SELECT c.* INTO config FROM public.llm_model_config c WHERE c.model = llm_stored_config.model;
    IF NOT FOUND THEN
        PERFORM public.llm_check_copied(model);
        RAISE EXCEPTION 'model % does not exist', COALESCE('"' || llm_stored_config.model || '"', 'NULL')
            USING ERRCODE = 'undefined_object',
            HINT = 'llm_model_config lists the models; llm_create_model creates one.';
    END IF;
    RETURN config;
END;
$function$;

COMMENT ON FUNCTION public.llm_stored_config(text) IS
'The model''s row of llm_model_config as it stands there, for what must work with wrong settings too: dropping, '
'renaming. 42704: no such model; 55000: a subscription is still copying it.';


CREATE FUNCTION public.llm_registered_arch(model text) RETURNS public.llm_arch
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    registered public.llm_arch;
BEGIN
    SELECT a.* INTO registered FROM public.llm_arch a WHERE a.arch = config.arch;
    -- Replication brings rows without looking at foreign keys.
    IF NOT FOUND THEN
        RAISE EXCEPTION 'architecture "%" of model "%" does not exist', config.arch, config.model
            USING ERRCODE = 'undefined_object',
            HINT = 'Create its functions in this database and register it by a row of llm_arch.';
    END IF;
    RETURN registered;
END;
$function$;

COMMENT ON FUNCTION public.llm_registered_arch(text) IS
'The row of llm_arch of the model''s architecture. 42704: no such model, or no such architecture.';


CREATE FUNCTION public.llm_check_config(
    model text,
    n_layer int DEFAULT NULL,
    n_head int DEFAULT NULL,
    d_model int DEFAULT NULL,
    vocab int DEFAULT NULL
) RETURNS public.llm_model_config
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    conflict text;
BEGIN
    conflict := CASE
        WHEN n_layer <> config.n_layer THEN format('n_layer %s, model "%s" has %s', n_layer, model, config.n_layer)
        WHEN n_head <> config.n_head THEN format('n_head %s, model "%s" has %s', n_head, model, config.n_head)
        WHEN d_model <> config.d_model THEN format('d_model %s, model "%s" has %s', d_model, model, config.d_model)
        WHEN vocab <> config.vocab THEN format('vocab %s, model "%s" has %s', vocab, model, config.vocab)
    END;
    IF conflict IS NOT NULL THEN
        RAISE EXCEPTION 'argument contradicts the configuration: %', conflict
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Leave the argument out, or pass what llm_model_config holds.';
    END IF;
    RETURN config;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_config(text, int, int, int, int) IS
'Returns the model''s configuration after checking the given sizes against it. 22023, with both numbers: one differs. '
'NULL arguments are not checked.';


CREATE FUNCTION public.llm_default_model(model text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    first_model text;
    last_model text;
BEGIN
    model := COALESCE(model, NULLIF(current_setting('pg_llm.default_model', true), ''));
    IF model IS NULL THEN
        SELECT min(p.model), max(p.model) INTO first_model, last_model FROM public.llm_param p;
        model := CASE WHEN first_model = last_model THEN first_model ELSE 'gpt2-small' END;
        IF first_model <> last_model AND NOT EXISTS (
            SELECT FROM public.llm_param p WHERE p.model = 'gpt2-small'
        ) THEN
            RAISE EXCEPTION 'no model is named, and several have weights: %',
                (SELECT string_agg(DISTINCT p.model, ', ' ORDER BY p.model) FROM public.llm_param p)
                USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Name one (model => ''...''), or SET pg_llm.default_model.';
        END IF;
    END IF;
    RETURN model;
END;
$function$;

COMMENT ON FUNCTION public.llm_default_model(text) IS
'The model to use when none is named: the setting pg_llm.default_model, else the only model with weights, else '
'gpt2-small. A given model is returned unchanged. 22023, with their names: several other models have weights.';


CREATE FUNCTION public.llm_lock_model(model text, change text DEFAULT 'changed') RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    holder int;
    training boolean;
BEGIN
    PERFORM public.llm_require_argument('model', model IS NOT NULL);
    IF NOT has_function_privilege('public.pg_llm_try_lock(regclass, text)', 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied: only trainers can change model "%"', model
            USING ERRCODE = 'insufficient_privilege',
            HINT = format('GRANT llm_trainer TO %I lets this role train, load, create and drop models.', current_user);
    END IF;
    IF public.pg_llm_try_lock('public.llm_model_config', model) THEN
        -- A second lock tells others what is done to the model.
        IF change = 'trained' THEN
            PERFORM public.pg_llm_try_lock('public.llm_train_run', model);
        END IF;
        RETURN;
    END IF;
    holder := public.pg_llm_lock_holder('public.llm_model_config', model);
    training := holder = public.pg_llm_lock_holder('public.llm_train_run', model);
    RAISE EXCEPTION 'model "%" is being % by %',
        model, CASE WHEN training THEN 'trained' ELSE 'changed' END,
        CASE holder WHEN 0 THEN 'a prepared transaction' ELSE 'process ' || COALESCE(holder::text, '(just ended)') END
        USING ERRCODE = 'lock_not_available',
        HINT = 'Only one transaction at a time can train, load, create, rename or drop a model: ' || CASE holder
            WHEN 0 THEN 'COMMIT PREPARED or ROLLBACK PREPARED the other, which pg_prepared_xacts lists.'
            ELSE 'wait for the other, or end it with pg_cancel_backend.'
        END;
END;
$function$;

COMMENT ON FUNCTION public.llm_lock_model(text, text) IS
'Takes the model''s lock until the end of the transaction, for training (change: trained) or for another change '
'(changed). 55P03 without waiting, naming the process: another session holds it.';


CREATE FUNCTION public.llm_model_step(model text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (SELECT COALESCE(max(p.step), 0) FROM public.llm_param p WHERE p.model = llm_model_step.model);
END;
$function$;

COMMENT ON FUNCTION public.llm_model_step(text) IS
'Number of optimizer steps that produced the stored weights.';
