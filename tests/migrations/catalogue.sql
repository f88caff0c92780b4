-- What catalogue.py lists. Each query gives a name, unique within its kind, and what there is to say about it.
-- Privileges are in the order of their text: an ACL keeps the order of the GRANTs.

-- kind: extension
SELECT extname, ARRAY['version ' || extversion, extnamespace::regnamespace::text, extconfig::regclass[]::text,
        obj_description(oid, 'pg_extension')]
    FROM pg_extension;

-- kind: member
SELECT e.extname || ': ' || pg_describe_object(d.classid, d.objid, d.objsubid), ARRAY[]::text[]
    FROM pg_depend AS d INNER JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname <> 'plpgsql';

-- kind: schema
SELECT nspname, ARRAY[nspowner::regrole::text,
        (SELECT string_agg(a::text, ', ' ORDER BY a::text COLLATE "C") FROM unnest(nspacl) AS a),
        obj_description(oid, 'pg_namespace')]
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema';

-- kind: routine
SELECT oid::regprocedure::text, ARRAY[CASE WHEN prokind <> 'a' THEN pg_get_functiondef(oid) END,
        prorettype::regtype::text, pg_get_function_arguments(oid), proowner::regrole::text,
        (SELECT string_agg(a::text, ', ' ORDER BY a::text COLLATE "C") FROM unnest(proacl) AS a),
        obj_description(oid, 'pg_proc')]
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace;

-- kind: aggregate
SELECT p.oid::regprocedure::text, ARRAY[to_jsonb(a)::text, p.provolatile::text, p.proparallel::text,
        p.proisstrict::text]
    FROM (SELECT aggfnoid, aggkind, aggnumdirectargs, aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn,
            aggmtransfn, aggminvtransfn, aggmfinalfn, aggfinalextra, aggfinalmodify, aggsortop::regoperator,
            aggtranstype::regtype, aggtransspace, agginitval FROM pg_aggregate) AS a
    INNER JOIN pg_proc AS p ON p.oid = a.aggfnoid WHERE p.pronamespace = 'public'::regnamespace;

-- kind: type
SELECT oid::regtype::text, ARRAY[(SELECT to_jsonb(t)::text FROM (SELECT typtype, typlen, typbyval, typcategory,
            typispreferred, typisdefined, typdelim, typinput, typoutput, typreceive, typsend, typmodin, typmodout,
            typanalyze, typsubscript, typelem::regtype, typalign, typstorage, typnotnull, typbasetype::regtype,
            typtypmod, typndims, typdefault) AS t),
        typowner::regrole::text,
        (SELECT string_agg(a::text, ', ' ORDER BY a::text COLLATE "C") FROM unnest(typacl) AS a),
        obj_description(oid, 'pg_type'),
        (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = pg_type.oid)]
    FROM pg_type WHERE typnamespace = 'public'::regnamespace;

-- kind: operator
SELECT oid::regoperator::text, ARRAY[(SELECT to_jsonb(o)::text FROM (SELECT oprkind, oprcanmerge, oprcanhash,
            oprresult::regtype, oprcom::regoperator, oprnegate::regoperator, oprcode, oprrest, oprjoin) AS o),
        oprowner::regrole::text, obj_description(oid, 'pg_operator')]
    FROM pg_operator WHERE oprnamespace = 'public'::regnamespace;

-- kind: cast
SELECT castsource::regtype || ' as ' || casttarget::regtype, ARRAY[castfunc::regprocedure::text, castcontext::text,
        castmethod::text, obj_description(oid, 'pg_cast')]
    FROM pg_cast WHERE oid >= 16384;

-- kind: operator class
SELECT a.amname || ' ' || opcname, ARRAY[opcintype::regtype::text, opcdefault::text, opckeytype::regtype::text,
        opcowner::regrole::text, obj_description(c.oid, 'pg_opclass'),
        (SELECT string_agg(pg_describe_object(d.classid, d.objid, 0), E'\n'
                ORDER BY pg_describe_object(d.classid, d.objid, 0) COLLATE "C")
            FROM pg_depend AS d WHERE d.refclassid = 'pg_opclass'::regclass AND d.refobjid = c.oid)]
    FROM pg_opclass AS c INNER JOIN pg_am AS a ON a.oid = c.opcmethod WHERE opcnamespace = 'public'::regnamespace;

-- kind: operator of a family
SELECT pg_describe_object('pg_amop'::regclass, o.oid, 0), ARRAY[o.amoppurpose::text]
    FROM pg_amop AS o INNER JOIN pg_opfamily AS f ON f.oid = o.amopfamily
    WHERE f.opfnamespace = 'public'::regnamespace;

-- kind: function of a family
SELECT pg_describe_object('pg_amproc'::regclass, o.oid, 0), ARRAY[o.amproc::text]
    FROM pg_amproc AS o INNER JOIN pg_opfamily AS f ON f.oid = o.amprocfamily
    WHERE f.opfnamespace = 'public'::regnamespace;

-- kind: relation
SELECT oid::regclass::text, ARRAY[relkind::text, relpersistence::text, 'row security ' || relrowsecurity,
        'forced ' || relforcerowsecurity, 'replica identity ' || relreplident::text, reloptions::text,
        relowner::regrole::text,

        (SELECT string_agg(a::text, ', ' ORDER BY a::text COLLATE "C") FROM unnest(relacl) AS a),
        obj_description(oid, 'pg_class'),
        CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END]
    FROM pg_class WHERE relnamespace = 'public'::regnamespace;

-- kind: column
SELECT a.attrelid::regclass || '.' || a.attname, ARRAY['number ' || a.attnum,
        format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END, a.attidentity::text,
        a.attgenerated::text, a.attstorage::text, a.attcompression::text, a.attcollation::regcollation::text,
        pg_get_expr(d.adbin, d.adrelid),
        (SELECT string_agg(a::text, ', ' ORDER BY a::text COLLATE "C") FROM unnest(a.attacl) AS a),
        col_description(a.attrelid, a.attnum)]
    FROM pg_attribute AS a INNER JOIN pg_class AS c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind <> 'i' AND a.attnum > 0 AND NOT a.attisdropped;

-- kind: constraint
SELECT coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text) || ' ' || conname,
        ARRAY[pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')]
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace;

-- kind: index
SELECT i.indexrelid::regclass::text, ARRAY[pg_get_indexdef(i.indexrelid), 'valid ' || i.indisvalid,
        'primary ' || i.indisprimary, obj_description(i.indexrelid, 'pg_class')]
    FROM pg_index AS i INNER JOIN pg_class AS c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace;

-- kind: sequence
SELECT seqrelid::regclass::text, ARRAY[(SELECT to_jsonb(s)::text FROM (SELECT seqtypid::regtype, seqstart,
            seqincrement, seqmax, seqmin, seqcache, seqcycle) AS s)]
    FROM pg_sequence INNER JOIN pg_class AS c ON c.oid = seqrelid WHERE c.relnamespace = 'public'::regnamespace;

-- kind: trigger
SELECT tgrelid::regclass || ' ' || CASE WHEN tgisinternal THEN 'internal' ELSE tgname END,
        array_agg(CASE WHEN tgisinternal THEN tgfoid::regproc::text ELSE pg_get_triggerdef(t.oid) END
            || ' ' || tgenabled::text ORDER BY tgfoid::regproc::text)
    FROM pg_trigger AS t INNER JOIN pg_class AS c ON c.oid = tgrelid
    WHERE c.relnamespace = 'public'::regnamespace GROUP BY 1;

-- kind: rule
SELECT ev_class::regclass || ' ' || rulename, ARRAY[pg_get_ruledef(r.oid), obj_description(r.oid, 'pg_rewrite')]
    FROM pg_rewrite AS r INNER JOIN pg_class AS c ON c.oid = ev_class
    WHERE c.relnamespace = 'public'::regnamespace AND rulename <> '_RETURN';

-- kind: policy
SELECT polrelid::regclass || ' ' || polname, ARRAY[polcmd::text, 'permissive ' || polpermissive,
        polroles::regrole[]::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)]
    FROM pg_policy INNER JOIN pg_class AS c ON c.oid = polrelid WHERE c.relnamespace = 'public'::regnamespace;

-- kind: event trigger
SELECT evtname, ARRAY[evtevent, evtfoid::regproc::text, evtenabled::text] FROM pg_event_trigger;

-- kind: default privileges
SELECT defaclrole::regrole || ' ' || defaclnamespace::regnamespace || ' ' || defaclobjtype::text,
        ARRAY[
        (SELECT string_agg(a::text, ', ' ORDER BY a::text COLLATE "C") FROM unnest(defaclacl) AS a)]
    FROM pg_default_acl;

-- kind: setting
SELECT coalesce(nullif(setrole, 0)::regrole::text, 'everybody'), setconfig FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database());
