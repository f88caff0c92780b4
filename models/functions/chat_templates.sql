-- Chat templates: which of the published ones a text is, and a conversation as they render it.

CREATE FUNCTION public.llm_chat_normalized(template text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- Each step leaves what transformers renders (trim_blocks, lstrip_blocks) as it is.
    template := regexp_replace(template, '\s*?\{#-.*?#\}\n?', '', 'g');
    template := regexp_replace(template, '\{#.*?#\}\n?', '', 'g');
    template := regexp_replace(template, '\s*(\{[{%])-', '\1', 'g');
    template := regexp_replace(template, '-([}%]\})\s*', '\1', 'g');
    template := regexp_replace(template, '(^|\n)[ \t]+\{%', '\1{%', 'g');
    template := regexp_replace(template, '%\}\n', '%}', 'g');
    template := regexp_replace(template, '(\{[{%])[ \t]+', '\1', 'g');
    template := regexp_replace(template, '[ \t]+([}%]\})', '\1', 'g');
    template := regexp_replace(template, '\[''(\w+)''\]', '.\1', 'g');
    RETURN rtrim(replace(template, '\n', E'\n'), E' \t\r\n');
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_normalized(text) IS
'A chat template without what makes no difference: comments, white space that its tags strip, ways of writing the '
'same.';


CREATE FUNCTION public.llm_chat_format(template text, OUT format text, OUT default_system text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    given text := public.llm_chat_normalized(template);
    stated text := substring(given FROM '<[|]im_start[|]>system\n([^<>{}''"\\\n]+)<[|]im_end[|]>\n');
BEGIN
    SELECT p.format, CASE WHEN strpos(p.pattern, '@SYSTEM@') > 0 THEN stated END INTO format, default_system
    FROM (
        -- Normalized; @REST@ is anything that only tools need, @SYSTEM@ the default system message.
        VALUES
        (
            'chatml',
            $t${%for message in messages%}{{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + $t$
            || $t$'\n'}}{%endfor%}{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}$t$
        ),
        (
            'chatml',
            $t${%if not add_generation_prompt is defined%}{%set add_generation_prompt = false%}{%endif%}$t$
            || $t${%for message in messages%}{{'<|im_start|>' + message.role + '\n' + message.content + $t$
            || $t$'<|im_end|>' + '\n'}}{%endfor%}{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}$t$
        ),
        (
            -- SmolLM2, Qwen1.5, Qwen2
            'chatml',
            $t${%for message in messages%}{%if loop.first and messages[0].role != 'system'%}$t$
            || $t${{'<|im_start|>system\n@SYSTEM@<|im_end|>\n'}}{%endif%}$t$
            || $t${{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n'}}{%endfor%}$t$
            || $t${%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}$t$
        ),
        (
            -- Qwen2.5
            'chatml',
            $t${%if tools%}@REST@{%else%}{%if messages[0].role == 'system'%}$t$
            || $t${{'<|im_start|>system\n' + messages[0].content + '<|im_end|>\n'}}{%else%}$t$
            || $t${{'<|im_start|>system\n@SYSTEM@<|im_end|>\n'}}{%endif%}{%endif%}{%for message in messages%}$t$
            || $t${%if (message.role == "user") or (message.role == "system" and not loop.first) or $t$
            || $t$(message.role == "assistant" and not message.tool_calls)%}$t$
            || $t${{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n'}}$t$
            || $t${%elif message.role == "assistant"%}@REST@{%endfor%}$t$
            || $t${%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}$t$
        ),
        (
            'qwen3',
            $t${%if tools%}@REST@{%else%}{%if messages[0].role == 'system'%}$t$
            || $t${{'<|im_start|>system\n' + messages[0].content + '<|im_end|>\n'}}{%endif%}{%endif%}@REST@$t$
            || $t${%for message in messages%}{%if (message.role == "user") or (message.role == "system" and not $t$
            || $t$loop.first)%}{{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n'}}$t$
            || $t${%elif message.role == "assistant"%}{%set content = message.content%}@REST@$t$
            || $t${%set content = message.content.split('</think>')[-1].lstrip('\n')%}@REST@$t$
            || $t${%if loop.index0 > ns.last_query_index%}@REST@{%else%}$t$
            || $t${{'<|im_start|>' + message.role + '\n' + content}}{%endif%}@REST@{%endfor%}$t$
            || $t${%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}$t$
            || $t${%if enable_thinking is defined and enable_thinking is false%}@REST@{%endif%}{%endif%}$t$
        ),
        (
            'llama3',
            $t${%set loop_messages = messages%}{%for message in loop_messages%}{%set content = $t$
            || $t$'<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'+ message.content | trim + $t$
            || $t$'<|eot_id|>'%}$t$
            || $t${%if loop.index0 == 0%}{%set content = bos_token + content%}{%endif%}{{content}}{%endfor%}$t$
            || $t${%if add_generation_prompt%}{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}{%endif%}$t$
        ),
        (
            'llama3',
            $t${%set loop_messages = messages%}{%for message in loop_messages%}{%set content = $t$
            || $t$'<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'+ message.content | trim + $t$
            || $t$'<|eot_id|>'%}$t$
            || $t${%if loop.index0 == 0%}{%set content = bos_token + content%}{%endif%}{{content}}{%endfor%}$t$
            || $t${{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}$t$
        ),
        (
            -- Llama 3.1, 3.3
            'llama3.1',
            $t${{bos_token}}@REST@{%if not date_string is defined%}{%set date_string = "26 Jul 2024"%}{%endif%}@REST@$t$
            || $t${%if messages[0].role == 'system'%}{%set system_message = messages[0].content|trim%}$t$
            || $t${%set messages = messages[1:]%}{%else%}{%set system_message = ""%}{%endif%}$t$
            || $t${{"<|start_header_id|>system<|end_header_id|>\n\n"}}@REST@$t$
            || $t${{"Cutting Knowledge Date: December 2023\n"}}{{"Today Date: " + date_string + "\n\n"}}@REST@$t$
            || $t${{system_message}}{{"<|eot_id|>"}}@REST@{%for message in messages%}$t$
            || $t${%if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message)%}$t$
            || $t${{'<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'+ message.content | trim + $t$
            || $t$'<|eot_id|>'}}{%elif 'tool_calls' in message%}@REST@{%endfor%}$t$
            || $t${%if add_generation_prompt%}{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}{%endif%}$t$
        ),
        (
            'llama3.2',
            $t${{bos_token}}@REST@{%if not date_string is defined%}{%if strftime_now is defined%}$t$
            || $t${%set date_string = strftime_now("%d %b %Y")%}{%else%}$t$
            || $t${%set date_string = "26 Jul 2024"%}{%endif%}$t$
            || $t${%endif%}@REST@{%if messages[0].role == 'system'%}$t$
            || $t${%set system_message = messages[0].content|trim%}$t$
            || $t${%set messages = messages[1:]%}{%else%}{%set system_message = ""%}{%endif%}$t$
            || $t${{"<|start_header_id|>system<|end_header_id|>\n\n"}}@REST@$t$
            || $t${{"Cutting Knowledge Date: December 2023\n"}}{{"Today Date: " + date_string + "\n\n"}}@REST@$t$
            || $t${{system_message}}{{"<|eot_id|>"}}@REST@{%for message in messages%}$t$
            || $t${%if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message)%}$t$
            || $t${{'<|start_header_id|>' + message.role + '<|end_header_id|>\n\n'+ message.content | trim + $t$
            || $t$'<|eot_id|>'}}{%elif 'tool_calls' in message%}@REST@{%endfor%}$t$
            || $t${%if add_generation_prompt%}{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}{%endif%}$t$
        ),
        (
            -- Zephyr, TinyLlama
            'zephyr',
            $t${%for message in messages%}$t$
            || $t${%if message.role == 'user'%}{{'<|user|>\n' + message.content + eos_token}}\n$t$
            || $t${%elif message.role == 'system'%}{{'<|system|>\n' + message.content + eos_token}}\n$t$
            || $t${%elif message.role == 'assistant'%}{{'<|assistant|>\n'  + message.content + eos_token}}\n{%endif%}$t$
            || $t${%if loop.last and add_generation_prompt%}{{'<|assistant|>'}}\n{%endif%}{%endfor%}$t$
        ),
        (
            'llama2',
            $t${%if messages[0].role == 'system'%}{%set loop_messages = messages[1:]%}$t$
            || $t${%set system_message = messages[0].content%}{%else%}{%set loop_messages = messages%}$t$
            || $t${%set system_message = false%}{%endif%}{%for message in loop_messages%}$t$
            || $t${%if (message.role == 'user') != (loop.index0 % 2 == 0)%}{{raise_exception('@REST@')}}{%endif%}$t$
            || $t${%if loop.index0 == 0 and system_message != false%}{%set content = '<<SYS>>\n' + system_message + $t$
            || $t$'\n<</SYS>>\n\n' + message.content%}{%else%}{%set content = message.content%}{%endif%}$t$
            || $t${%if message.role == 'user'%}{{bos_token + '[INST] ' + content.strip() + ' [/INST]'}}$t$
            || $t${%elif message.role == 'assistant'%}{{' '  + content.strip() + ' ' + eos_token}}{%endif%}{%endfor%}$t$
        ),
        (
            -- 0.1
            'mistral-spaced',
            $t${{bos_token}}{%for message in messages%}{%if (message.role == 'user') != (loop.index0 % 2 == 0)%}$t$
            || $t${{raise_exception('@REST@')}}{%endif%}{%if message.role == 'user'%}$t$
            || $t${{'[INST] ' + message.content + ' [/INST]'}}{%elif message.role == 'assistant'%}$t$
            || $t${{message.content + eos_token + ' '}}{%else%}{{raise_exception('@REST@')}}{%endif%}{%endfor%}$t$
        ),
        (
            -- 0.2
            'mistral',
            $t${{bos_token}}{%for message in messages%}{%if (message.role == 'user') != (loop.index0 % 2 == 0)%}$t$
            || $t${{raise_exception('@REST@')}}{%endif%}{%if message.role == 'user'%}$t$
            || $t${{'[INST] ' + message.content + ' [/INST]'}}{%elif message.role == 'assistant'%}$t$
            || $t${{message.content + eos_token}}{%else%}{{raise_exception('@REST@')}}{%endif%}{%endfor%}$t$
        )
    ) p (format, pattern)
    WHERE given LIKE replace(
        replace(
            regexp_replace(replace(p.pattern, '\n', E'\n'), '([\\%_])', '\\\1', 'g'),
            '@SYSTEM@', COALESCE(regexp_replace(stated, '([\\%_])', '\\\1', 'g'), '@SYSTEM@')
        ),
        '@REST@', '%'
    )
    LIMIT 1;
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_format(text) IS
'Which of the chat templates that the server renders this one is, by its text, and the system message that it puts '
'before a conversation without one; NULL for another template.';


CREATE FUNCTION public.llm_chat_stripped(content text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    spaces text := E' \t\n\v\f\r\x1c\x1d\x1e\x1f';
BEGIN
    -- What Python's str.strip removes.
    IF getdatabaseencoding() = 'UTF8' THEN
        spaces := spaces || convert_from(
            '\xc285c2a0e19a80e28080e28081e28082e28083e28084e28085e28086e28087e28088e28089e2808a'::bytea
            || '\xe280a8e280a9e280afe2819fe38080'::bytea,
            'UTF8'
        );
    END IF;
    RETURN btrim(content, spaces);
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_stripped(text) IS
'The text without white space at its ends, as the templates'' trim leaves it.';


CREATE FUNCTION public.llm_chat_render(
    messages jsonb,
    format text,
    default_system text,
    bos text,
    eos text,
    OUT texts text[],
    OUT is_template boolean[],
    OUT ending text
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    head text;
    tail text;
    opening text := '';
    answer text;
    strips boolean;
    dated text := '';
    message record;
    given_system text := CASE WHEN messages -> 0 ->> 'role' = 'system' THEN messages -> 0 ->> 'content' END;
    rest jsonb := messages;
BEGIN
    bos := COALESCE(bos, '');
    eos := COALESCE(eos, '');
    CASE
        WHEN format IN ('chatml', 'qwen3') THEN
            head := E'<|im_start|>{role}\n';
            tail := E'<|im_end|>\n';
        WHEN format IN ('llama3', 'llama3.1', 'llama3.2') THEN
            head := E'<|start_header_id|>{role}<|end_header_id|>\n\n';
            tail := '<|eot_id|>';
            opening := bos;
            IF format <> 'llama3' THEN
                dated := E'Cutting Knowledge Date: December 2023\nToday Date: ' || CASE
                    WHEN format = 'llama3.1' THEN '26 Jul 2024' ELSE to_char(now(), 'DD Mon YYYY')
                END || E'\n\n';
                default_system := '';
            END IF;
        WHEN format = 'zephyr' THEN
            head := E'<|{role}|>\n';
            tail := eos || E'\n';
        ELSE
            SELECT r.texts, r.is_template, r.ending INTO texts, is_template, ending
            FROM public.llm_chat_render_inst(messages, format, bos, eos) r;
            RETURN;
    END CASE;
    texts := '{}';
    is_template := '{}';
    ending := tail;
    strips := format LIKE 'llama3%';
    IF given_system IS NULL AND default_system IS NOT NULL THEN
        rest := jsonb_build_array(jsonb_build_object('role', 'system', 'content', default_system)) || messages;
    END IF;
    PERFORM public.llm_require(
        format <> 'qwen3' OR messages -> -1 ->> 'role' = 'user'
        AND messages -> -1 ->> 'content' NOT LIKE '<tool_response>%</tool_response>',
        'the model''s chat template needs a message of the user at the end'
    );
    FOR message IN
        SELECT m.value ->> 'role' AS role, m.value ->> 'content' AS content, m.number = 1 AS is_first
        FROM jsonb_array_elements(rest) WITH ORDINALITY m (value, number)
        ORDER BY m.number
    LOOP
        IF format = 'qwen3' AND message.role = 'assistant' THEN
            -- Of earlier answers the reasoning is left out.
            message.content := CASE
                WHEN strpos(message.content, '</think>') = 0 THEN message.content
                ELSE ltrim(regexp_replace(message.content, '^.*</think>', ''), E'\n')
            END;
        END IF;
        texts := texts || ARRAY[
            CASE WHEN message.is_first THEN opening ELSE '' END || replace(head, '{role}', message.role)
            || CASE WHEN message.is_first THEN dated ELSE '' END,
            CASE WHEN strips THEN public.llm_chat_stripped(message.content) ELSE message.content END,
            tail
        ];
        is_template := is_template || ARRAY[true, false, true];
    END LOOP;
    answer := CASE WHEN format = 'zephyr' THEN E'<|assistant|>\n' ELSE replace(head, '{role}', 'assistant') END;
    texts := texts || answer;
    is_template := is_template || true;
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_render(jsonb, text, text, text, text) IS
'A checked conversation as a template of this format renders it, ready for an answer: its parts, which of them are the '
'template''s own (only these hold special tokens), and what follows an answer.';


CREATE FUNCTION public.llm_chat_render_inst(
    messages jsonb,
    format text,
    bos text,
    eos text,
    OUT texts text[],
    OUT is_template boolean[],
    OUT ending text
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    message record;
    given_system text := CASE WHEN messages -> 0 ->> 'role' = 'system' THEN messages -> 0 ->> 'content' END;
    strips boolean := format = 'llama2';
    stripped text;
BEGIN
    PERFORM public.llm_require(
        strips OR given_system IS NULL, 'the model''s chat template takes no system message',
        'Say in the first message of the user what the assistant is to do.'
    );
    texts := '{}';
    is_template := '{}';
    FOR message IN
        SELECT m.value ->> 'role' AS role, m.value ->> 'content' AS content, m.number,
            row_number() OVER (ORDER BY m.number) AS turn
        FROM jsonb_array_elements(messages) WITH ORDINALITY m (value, number)
        WHERE m.number > 1 OR given_system IS NULL
        ORDER BY m.number
    LOOP
        PERFORM public.llm_require(
            message.role = CASE WHEN message.turn % 2 = 1 THEN 'user' ELSE 'assistant' END,
            format(
                'in the model''s chat template user and assistant take turns, beginning with user; message %s is of %s',
                message.number, message.role
            )
        );
        IF message.role = 'assistant' THEN
            texts := texts || ARRAY[
                CASE WHEN strips THEN ' ' ELSE '' END,
                CASE WHEN strips THEN public.llm_chat_stripped(message.content) ELSE message.content END,
                CASE format WHEN 'llama2' THEN ' ' || eos WHEN 'mistral-spaced' THEN eos || ' ' ELSE eos END
            ];
            is_template := is_template || ARRAY[true, false, true];
            CONTINUE;
        END IF;
        texts := texts || (CASE WHEN strips OR message.turn = 1 THEN bos ELSE '' END || '[INST] ');
        is_template := is_template || true;
        IF message.turn = 1 AND given_system IS NOT NULL THEN
            -- Its ends are stripped together with the message that it stands in.
            stripped := substr(public.llm_chat_stripped('.' || message.content), 2);
            texts := texts || ARRAY[
                E'<<SYS>>\n', given_system, E'\n<</SYS>>' || CASE WHEN stripped = '' THEN '' ELSE E'\n\n' END, stripped
            ];
            is_template := is_template || ARRAY[true, false, true, false];
        ELSE
            texts := texts || CASE
                WHEN strips THEN public.llm_chat_stripped(message.content) ELSE message.content
            END;
            is_template := is_template || false;
        END IF;
        texts := texts || ' [/INST]'::text;
        is_template := is_template || true;
    END LOOP;
    PERFORM public.llm_require(texts <> '{}', 'the model''s chat template needs a message of the user');
    ending := eos;
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_render_inst(jsonb, text, text, text) IS
'llm_chat_render for the formats of Llama 2 and Mistral.';
