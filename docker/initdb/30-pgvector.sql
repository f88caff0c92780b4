-- First start only: casts between tensor and pgvector's vector, if the image was built with PGVECTOR=yes.
SELECT count(*) > 0 AS has_vector FROM pg_available_extensions WHERE name = 'vector' \gset
\if :has_vector
CREATE EXTENSION vector SCHEMA public;
CREATE EXTENSION pg_llm_vector;
\endif
