-- Functions of pg_llm.c, and privileges on everything above.

CREATE FUNCTION public.pg_llm_require_autocommit(procedure text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_require_autocommit';
COMMENT ON FUNCTION public.pg_llm_require_autocommit(text) IS
    'Raises 2D000 with a hint inside a transaction block, where a procedure that commits cannot run.';

CREATE FUNCTION public.pg_llm_release()
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_release';
COMMENT ON FUNCTION public.pg_llm_release() IS
    'Frees the memory of versions that are not in use and of cached buffers; returns the number of bytes.';

-- Privileges. Functions that compute only with their arguments keep PUBLIC's EXECUTE, where the database has it.
-- Functions that read or change the state of a session, the server or its files are granted by an administrator or by
-- provisioning; the owner of the database may grant them.
DO $grants$
DECLARE
    routine record;
    ops CONSTANT text[] := ARRAY(
        SELECT pg_catalog.format('pg_llm_%s%s', o.name, g.suffix)
        FROM public.pg_llm_ops() AS o (name), (VALUES (''), ('_backward')) AS g (suffix)
    );
    -- Input, output, casts, comparison, accessors, constructors, aggregates, what is made of ops, choosing a token from
    -- given logits, an optimizer's step on given tensors.
    computes CONSTANT text := '^(tensor|shape|ndims|norm|sum|avg|pg_llm_tensor_(?!id$)\w+|pg_llm_('
        'item|full|normal|uniform|zeros_like|ones_like|sum_accum|sum_final|avg_final|'
        '(attention|activation)(_backward)?|apply|'
        '(add|sub|mul|div)_number|number_(add|sub|mul|div)|'
        'sample|penalize|top_tokens|adamw_step|grad_clip|lr_schedule|megatron_order))$';
BEGIN
    FOR routine IN
        SELECT p.oid::pg_catalog.regprocedure AS signature, p.proname AS name
        FROM pg_catalog.pg_depend d
        INNER JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_llm'
        INNER JOIN pg_catalog.pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND d.deptype = 'e' AND p.proname <> 'pg_llm_read_file'
    LOOP
        EXECUTE pg_catalog.format(
            'GRANT EXECUTE ON ROUTINE %s TO pg_database_owner WITH GRANT OPTION', routine.signature
        );
        IF routine.name !~ computes AND routine.name <> ALL (ops) THEN
            EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', routine.signature);
        END IF;
        IF pg_catalog.starts_with(routine.name, 'pg_llm_file_') THEN
            EXECUTE pg_catalog.format(
                'GRANT EXECUTE ON ROUTINE %s TO pg_read_server_files, pg_write_server_files', routine.signature
            );
        END IF;
    END LOOP;
END
$grants$;
