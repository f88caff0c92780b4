-- What an architecture needs of a configuration beyond its columns: llm_model_config.settings, as llm_arch.settings
-- declares them. Checked where they are used, not by a CHECK, which would have to read llm_arch during a restore.

CREATE FUNCTION public.llm_settings(config public.llm_model_config, declared jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    filled jsonb := COALESCE(config.settings, '{}');
    key text;
    declaration jsonb;
    value jsonb;
    known text[] := '{}';
BEGIN
    -- A loop of simple expressions: one query over all of them takes longer to begin, and this runs in every pass.
    FOR key, declaration IN SELECT e.key, e.value FROM jsonb_each(declared) e (key, value) LOOP
        known := known || key;
        value := config.settings -> key;
        IF value IS NULL THEN
            value := COALESCE(declaration -> 'default', 'null');
            filled := filled || jsonb_build_object(key, value);
        END IF;
        IF NOT public.llm_setting_fits(value, declaration, config)
            OR key IN (
                'model', 'arch', 'n_layer', 'n_head', 'd_model', 'n_positions', 'vocab', 'd_ff', 'layer_norm_eps',
                'activation_function', 'tied', 'init_seed', 'created_at', 'settings'
            )
        THEN
            PERFORM public.llm_refuse_setting(key, value, declared, config);
        END IF;
    END LOOP;
    IF filled - known <> '{}' THEN
        key := (SELECT min(u.key) FROM jsonb_object_keys(filled - known) u (key));
        PERFORM public.llm_refuse_setting(key, config.settings -> key, declared, config);
    END IF;
    RETURN filled;
END;
$function$;

COMMENT ON FUNCTION public.llm_settings(public.llm_model_config, jsonb) IS
'The settings of a configuration, held against what its architecture declares (llm_arch.settings), with defaults for '
'those it lacks. 22023, with the setting''s name: the architecture does not know it, its type or value is not allowed, '
'or a column of llm_model_config has the name.';


CREATE FUNCTION public.llm_setting_fits(value jsonb, declaration jsonb, config public.llm_model_config)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    type CONSTANT text := declaration ->> 'type';
    minimum jsonb;
    maximum jsonb;
BEGIN
    IF value = 'null' AND COALESCE(declaration -> 'default', 'null') = 'null' THEN
        RETURN COALESCE(type IN ('text', 'boolean', 'integer', 'number', 'object', 'options'), false);
    END IF;
    IF type IS NULL OR type NOT IN ('integer', 'number') THEN
        RETURN COALESCE(CASE type
            WHEN 'text' THEN
                jsonb_typeof(value) = 'string'
                AND (NOT declaration ? 'values' OR declaration -> 'values' @> value)
            WHEN 'boolean' THEN jsonb_typeof(value) = 'boolean'
            WHEN 'object' THEN
                jsonb_typeof(value) = 'object' AND NOT jsonb_path_exists(value, '$.* ? (@.type() <> "string")')
            WHEN 'options' THEN
                jsonb_typeof(value) = 'object' AND NOT jsonb_path_exists(
                    value,
                    'strict $.* ? (@.type() != "string" && @.type() != "number" && @.type() != "boolean")'
                )
        END, false);
    END IF;
    -- jsonb's numbers are compared as numbers, and lie apart from all else. What int and double precision hold, so
    -- that the casts of those who read it cannot fail.
    IF type = 'integer' THEN
        IF value < '-2147483647' OR value > '2147483647' OR scale((value #>> '{}')::numeric) > 0 THEN
            RETURN false;
        END IF;
    ELSIF value <> '0' AND NOT (value BETWEEN '1e-300' AND '1e300' OR value BETWEEN '-1e300' AND '-1e-300') THEN
        RETURN false;
    END IF;
    minimum := declaration -> 'minimum';
    IF jsonb_typeof(minimum) = 'string' THEN
        minimum := public.llm_size(minimum #>> '{}', config);
    END IF;
    maximum := declaration -> 'maximum';
    IF jsonb_typeof(maximum) = 'string' THEN
        maximum := public.llm_size(maximum #>> '{}', config);
    END IF;
    RETURN COALESCE(value >= minimum, true) AND COALESCE(value <= maximum, true)
        AND COALESCE(value > declaration -> 'above', true)
        AND COALESCE(
            mod((public.llm_size(declaration ->> 'divides', config) #>> '{}')::numeric,
                NULLIF((value #>> '{}')::numeric, 0)) = 0,
            true
        );
END;
$function$;

COMMENT ON FUNCTION public.llm_setting_fits(jsonb, jsonb, public.llm_model_config) IS
'Whether a value is one that a declaration in llm_arch.settings allows: its type, one of its values, between its '
'bounds, which are numbers or sizes by their names, a divisor of the size that it has to divide.';


CREATE FUNCTION public.llm_size(name text, config public.llm_model_config) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN to_jsonb(CASE name
        WHEN 'n_layer' THEN config.n_layer
        WHEN 'n_head' THEN config.n_head
        WHEN 'd_model' THEN config.d_model
        WHEN 'n_positions' THEN config.n_positions
        WHEN 'vocab' THEN config.vocab
        WHEN 'd_ff' THEN COALESCE(config.d_ff, 4 * config.d_model::bigint)
    END);
END;
$function$;

COMMENT ON FUNCTION public.llm_size(text, public.llm_model_config) IS
'A size of a configuration by its name, as JSON; NULL for any other name.';


CREATE FUNCTION public.llm_refuse_setting(
    key text, value jsonb, declared jsonb, config public.llm_model_config
) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    declaration CONSTANT jsonb := declared -> key;
    subject CONSTANT text := CASE
        WHEN config.settings ? key THEN format('setting "%s" of model "%s"', key, config.model)
        ELSE format('the default of setting "%s" of architecture "%s"', key, config.arch)
    END;
    known CONSTANT text := (SELECT string_agg(k.key, ', ' ORDER BY k.key) FROM jsonb_object_keys(declared) k (key));
    rule text;
BEGIN
    PERFORM public.llm_require(
        key NOT IN (
            'model', 'arch', 'n_layer', 'n_head', 'd_model', 'n_positions', 'vocab', 'd_ff', 'layer_norm_eps',
            'activation_function', 'tied', 'init_seed', 'created_at', 'settings'
        ),
        format('%s repeats the column of that name', subject),
        format('Remove it from settings; the column %s of llm_model_config has the value.', key)
    );
    PERFORM public.llm_require(
        declaration IS NOT NULL,
        format('%s is not known to architecture "%s"', subject, config.arch),
        COALESCE('It knows ' || known || '.', 'It knows no settings.')
    );
    rule := CASE declaration ->> 'type'
        WHEN 'text' THEN COALESCE(
            'one of ' || (
                SELECT string_agg(v.value, ', ')
                FROM jsonb_array_elements_text(
                    CASE jsonb_typeof(declaration -> 'values') WHEN 'array' THEN declaration -> 'values' END
                ) v (value)
            ),
            'a text'
        )
        WHEN 'boolean' THEN 'true or false'
        WHEN 'integer' THEN 'an integer'
        WHEN 'number' THEN 'a number'
        WHEN 'object' THEN 'an object whose values are texts'
        WHEN 'options' THEN 'an object whose values are texts, numbers, true or false'
    END;
    PERFORM public.llm_require(
        rule IS NOT NULL,
        format('architecture "%s" declares setting "%s" with type %s', config.arch, key,
            COALESCE(declaration ->> 'type', 'NULL')),
        'Types are text, boolean, integer, number, object and options; see llm_arch.settings.'
    );
    SELECT concat_ws(', ', rule, string_agg(b.text || (b.bound #>> '{}'), ', '),
        CASE WHEN COALESCE(declaration -> 'default', 'null') = 'null' THEN 'or null' END)
    INTO rule
    FROM (
        VALUES
        ('at least ', declaration -> 'minimum'), ('above ', declaration -> 'above'),
        ('at most ', declaration -> 'maximum'), ('a divisor of ', declaration -> 'divides')
    ) b (text, bound)
    WHERE b.bound IS NOT NULL;
    PERFORM public.llm_require(
        false,
        format('%s must be %s, got %s', subject, rule, COALESCE(left(value::text, 100), 'NULL')),
        format('Architecture "%s" knows the settings %s.', config.arch, known)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_refuse_setting(text, jsonb, jsonb, public.llm_model_config) IS
'Raises 22023 for a setting that llm_settings found wrong, and tells what it must be.';
