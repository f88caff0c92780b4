"""Chat templates of published models, conversations, and a small model that answers.

The long templates are given without what only tools need, which no conversation of ours has.
"""

# ruff: noqa: E501

from __future__ import annotations

import datetime
import json
from random import Random
from typing import Any

import psycopg

from ..reference import bpe
from .small_models import make_model

Connection = psycopg.Connection[Any]
Messages = list[dict[str, str]]

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN2_5 = r"""{%- if tools %}
    {{- tools | tojson }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- message.tool_calls | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN3 = r"""{%- if tools %}
    {{- tools | tojson }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- raise_exception('not here') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' +"
    " message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_DATES = {
    "llama3.1": r"""{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}""",
    "llama3.2": r"""{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}""",
}
LLAMA3_DATED = r"""{{- bos_token }}
DATE
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{#- A second comment, and #}{# a third one. #}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- message.tool_calls | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] +"
    " eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must"
    " alternate user/assistant/user/assistant/...') }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + _ALTERNATE +
    r"{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message +"
    r" '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)  # fmt: skip
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}" + _ALTERNATE +
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)  # fmt: skip
TEMPLATES: dict[str, tuple[str, str]] = {
    "ChatML": ("chatml", CHATML),
    "SmolLM2": ("chatml", SMOLLM2),
    "Qwen2": ("chatml", SMOLLM2.replace("AI assistant named SmolLM, trained by Hugging Face", "assistant.")),
    "Qwen2.5": ("chatml", QWEN2_5),
    "Qwen3": ("qwen3", QWEN3),
    "Llama 3": ("llama3", LLAMA3),
    "Llama 3.1": ("llama3.1", LLAMA3_DATED.replace("DATE", _DATES["llama3.1"], 1)),
    "Llama 3.2": ("llama3.2", LLAMA3_DATED.replace("DATE", _DATES["llama3.2"], 1)),
    "Zephyr": ("zephyr", ZEPHYR),
    "Llama 2": ("llama2", LLAMA2),
    "Mistral 0.1": ("mistral-spaced", MISTRAL.replace("eos_token}}", "eos_token + ' ' }}")),
    "Mistral 0.2": ("mistral", MISTRAL),
}
"""By model: the name that llm_chat_format has for it, and the text."""
ALTERNATING = ("llama2", "mistral", "mistral-spaced")

# Whatever templates have for special tokens, and tokens beside them that a text may hold.
SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"),
)
BOS, EOS = "<s>", "</s>"
WORDS = (
    *("the model", "index", " a", "  two blanks ", "\n", "\t", "it's", "12345", "don't", "é", "漢字", "🙂"),
    *(
        "<|im_end|>",
        "<|im_start|>assistant\n",
        "</s>",
        "<|eot_id|>",
        "[INST]",
        "<<SYS>>",
        "</think>",
        "<think>",
    ),
    *("{{ bos_token }}", "{% raw %}", "\u2003", "\x1f", "'", '"', "\\", "<|", "|>"),
)


def conversation(rng: Random, format: str) -> Messages:
    """Of a few messages, the last of the user, as this template takes them."""
    roles = [rng.choice(("user", "assistant", "user", "system")) for _ in range(rng.randrange(5))]
    if format in ALTERNATING:
        roles = ["user", "assistant"] * rng.randrange(3)
    elif format == "qwen3":
        roles = ["user" if role == "system" else role for role in roles]
    starts = [] if format.startswith("mistral") or rng.random() < 0.5 else ["system"]
    return [{"role": role, "content": content(rng)} for role in [*starts, *roles, "user"]]


def content(rng: Random) -> str:
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(7)))


def rendered(template: str, messages: Messages, bos: str = BOS, eos: str = EOS) -> str:
    """The text that transformers makes of it, by jinja2 alone."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now(datetime.timezone.utc).strftime(
        form
    )
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, bos_token=bos, eos_token=eos
    )


def make_chat_model(
    conn: Connection,
    model: str = "chatty",
    template: str | None = CHATML,
    *,
    n_positions: int = 256,
    special: tuple[str, ...] = SPECIAL,
    **sizes: Any,
) -> str:
    """A GPT-2 over bytes and a few merges, with special tokens; its answers are noise."""
    n = 512
    added = [
        {"id": n + i, "content": token, "flags": ["added", "special", *roles(token)]}
        for i, token in enumerate(special)
    ]
    conn.execute(
        "SELECT llm_load_bpe(%s, %s, %s, %s::jsonb)",
        (
            model,
            (bpe.GOLDEN / "bpe_vocab.json").read_bytes(),
            (bpe.GOLDEN / "bpe_merges.txt").read_bytes(),
            json.dumps(added),
        ),
    )
    if template is not None:
        conn.execute("SELECT llm_set_chat_template(%s, %s)", (model, template))
    make_model(conn, model, vocab=n + len(special), n_positions=n_positions, **sizes)
    return model


def roles(token: str) -> list[str]:
    return {BOS: ["bos"], EOS: ["eos"]}.get(token, [])
