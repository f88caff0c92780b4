-- Parameters for readers that know floats only: little-endian float32, attention's projections cut into heads.
--
-- A head's share is a block of columns in the query, key and value projections (GPT-2's c_attn holds all three side
-- by side, and so does its bias) and a block of rows in the output projection. Everything else has head NULL.

CREATE VIEW public.llm_param_er WITH (security_invoker = true) AS
SELECT
    param.model || '/' || param.name || '/' || param.token_id AS param_id,
    param.layer,
    part.head,
    param.name AS tensor_name,
    CASE layout.kind
        WHEN 'whole' THEN param.data::bytea
        WHEN 'rows' THEN (
            SELECT substring(
                raw.data
                FROM (part.first_row - param.token_id) * config.d_model * 4 + 1
                FOR (part.end_row - part.first_row) * config.d_model * 4
            )
            FROM (SELECT param.data::bytea AS data OFFSET 0) AS raw
        )
        ELSE (
            SELECT string_agg(
                substring(
                    raw.data
                    FROM ((line.n * layout.blocks + block.n) * config.d_model + part.head * layout.d_head) * 4 + 1
                    FOR layout.d_head * 4
                ),
                ''::bytea
                ORDER BY line.n, block.n
            )
            FROM
                (SELECT param.data::bytea AS data OFFSET 0) AS raw,
                generate_series(0, octet_length(raw.data) / (layout.blocks * config.d_model * 4) - 1) AS line (n),
                generate_series(0, layout.blocks - 1) AS block (n)
        )
    END AS values,
    param.updated_at
FROM public.llm_param AS param
INNER JOIN public.llm_model_config AS config ON config.model = param.model
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN param.name ~ '^h\.\d+\.attn\.(c_attn\.(weight|bias)|[qkv]_proj\.(weight|bias))$' THEN 'columns'
            WHEN param.name ~ '^h\.\d+\.attn\.(c_proj|o_proj)\.weight$' THEN 'rows'
            ELSE 'whole'
        END AS kind,
        CASE WHEN param.name ~ '\.c_attn\.' THEN 3 ELSE 1 END AS blocks,
        config.d_model / config.n_head AS d_head,
        (public.shape(param.data))[1] AS n_rows
) AS layout
CROSS JOIN LATERAL (
    SELECT
        share.head,
        greatest(share.head * layout.d_head, param.token_id) AS first_row,
        least((share.head + 1) * layout.d_head, param.token_id + layout.n_rows) AS end_row
    FROM (
        SELECT NULL::integer AS head
        WHERE layout.kind = 'whole'
        UNION ALL
        SELECT heads.head
        FROM generate_series(0, config.n_head - 1) AS heads (head)
        WHERE layout.kind <> 'whole'
    ) AS share
) AS part
WHERE layout.kind <> 'rows' OR part.first_row < part.end_row;

COMMENT ON VIEW public.llm_param_er IS
'parameters as little-endian float32, attention projections by head; param_id is model/name/token_id';
