-- What an architecture needs of a configuration beyond its columns: llm_model_config.settings, as llm_arch.settings
-- declares them. Checked where they are used, not by a CHECK, which would have to read llm_arch during a restore.

CREATE FUNCTION public.llm_settings(config public.llm_model_config) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    declared jsonb;
    filled jsonb;
    wrong text;
BEGIN
    SELECT a.settings INTO declared FROM public.llm_arch a WHERE a.arch = config.arch;
    -- Without its architecture, as replication can leave it, a model computes nothing: llm_registered_arch tells.
    IF declared IS NULL OR (declared = '{}' AND config.settings = '{}') THEN
        RETURN config.settings;
    END IF;
    SELECT COALESCE(jsonb_object_agg(d.key, d.value -> 'default'), '{}') || COALESCE(config.settings, '{}') INTO filled
    FROM jsonb_each(declared) d (key, value);
    SELECT s.key INTO wrong
    FROM jsonb_each(filled) s (key, value)
    LEFT JOIN jsonb_each(declared) d (key, value) ON d.key = s.key
    WHERE s.key IN ({{ architectures.config_columns }})
        OR CASE
            WHEN s.value = 'null' AND COALESCE(d.value -> 'default', 'null') = 'null' THEN
                COALESCE(d.value ->> 'type', '') NOT IN ('text', 'boolean', 'integer', 'number', 'object')
            WHEN d.value ->> 'type' = 'text' THEN
                jsonb_typeof(s.value) <> 'string'
                OR (d.value ? 'values' AND NOT d.value -> 'values' @> s.value)
            WHEN d.value ->> 'type' = 'boolean' THEN jsonb_typeof(s.value) <> 'boolean'
            WHEN d.value ->> 'type' = 'object' THEN
                jsonb_typeof(s.value) <> 'object' OR jsonb_path_exists(s.value, '$.* ? (@.type() <> "string")')
            WHEN d.value ->> 'type' IN ('integer', 'number') THEN CASE
                WHEN jsonb_typeof(s.value) <> 'number' THEN true
                ELSE NOT public.llm_setting_fits((s.value #>> '{}')::numeric, d.value, config)
            END
            ELSE true
        END
    ORDER BY s.key
    LIMIT 1;
    IF wrong IS NOT NULL THEN
        PERFORM public.llm_refuse_setting(wrong, filled -> wrong, declared, config);
    END IF;
    RETURN filled;
END;
$function$;

COMMENT ON FUNCTION public.llm_settings(public.llm_model_config) IS
'The settings of a configuration, held against what its architecture declares in llm_arch.settings, with defaults for '
'those it lacks. 22023, with the setting''s name: the architecture does not know it, its type or value is not allowed, '
'or a column of llm_model_config has the name.';


CREATE FUNCTION public.llm_setting_bound(bound jsonb, config public.llm_model_config) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN CASE jsonb_typeof(bound)
        WHEN 'number' THEN (bound #>> '{}')::numeric
        WHEN 'string' THEN CASE bound #>> '{}'
            WHEN 'n_layer' THEN config.n_layer
            WHEN 'n_head' THEN config.n_head
            WHEN 'd_model' THEN config.d_model
            WHEN 'n_positions' THEN config.n_positions
            WHEN 'vocab' THEN config.vocab
            WHEN 'd_ff' THEN COALESCE(config.d_ff, 4 * config.d_model::bigint)
        END
    END;
END;
$function$;

COMMENT ON FUNCTION public.llm_setting_bound(jsonb, public.llm_model_config) IS
'The value of a bound in llm_arch.settings: a number, or the size of the model that it names; NULL: none.';


CREATE FUNCTION public.llm_setting_fits(number numeric, declaration jsonb, config public.llm_model_config)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- What int and double precision hold, so that the casts of those who read it cannot fail.
    RETURN CASE declaration ->> 'type'
        WHEN 'integer' THEN scale(number) = 0 AND abs(number) <= 2147483647
        ELSE number = 0 OR abs(number) BETWEEN 1e-300 AND 1e300
    END
        AND number >= COALESCE(public.llm_setting_bound(declaration -> 'minimum', config), number)
        AND number <= COALESCE(public.llm_setting_bound(declaration -> 'maximum', config), number)
        AND number > COALESCE(public.llm_setting_bound(declaration -> 'above', config), number - 1);
END;
$function$;

COMMENT ON FUNCTION public.llm_setting_fits(numeric, jsonb, public.llm_model_config) IS
'Whether a number is one of the declared type, between the declared bounds.';


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
        key NOT IN ({{ architectures.config_columns }}),
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
    END;
    PERFORM public.llm_require(
        rule IS NOT NULL,
        format('architecture "%s" declares setting "%s" with type %s', config.arch, key,
            COALESCE(declaration ->> 'type', 'NULL')),
        'Types are text, boolean, integer, number and object; see llm_arch.settings.'
    );
    SELECT concat_ws(', ', rule, string_agg(b.text || (b.bound #>> '{}'), ', '),
        CASE WHEN COALESCE(declaration -> 'default', 'null') = 'null' THEN 'or null' END)
    INTO rule
    FROM (
        VALUES
        ('at least ', declaration -> 'minimum'), ('above ', declaration -> 'above'),
        ('at most ', declaration -> 'maximum')
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
