INSERT INTO public.llm_arch (arch, forward, parameters, description, kind, settings) VALUES
    ('gpt2', 'public.llm_forward_gpt2', 'public.llm_parameters_gpt2', 'GPT-2: pre-LayerNorm blocks, learned positions, tanh GELU, tied head (Radford et al. 2019)', 'decoder', '{}'),
    ('gpt3', 'public.llm_forward_gpt3', 'public.llm_parameters_gpt3', 'GPT-3: GPT-2''s equations at other sizes, odd layers banded if asked (Brown et al. 2020)', 'decoder', '{"band": {"type": "integer", "default": null, "minimum": 1, "doc": "odd layers see this many tokens, the last ones; null: every layer sees all"}}'),
    ('microgpt', 'public.llm_forward_microgpt', 'public.llm_parameters_microgpt', 'microgpt: RMSNorm without gains, ReLU, no biases, head of its own (Karpathy)', 'decoder', '{}'),
    ('bert', 'public.llm_forward_bert', 'public.llm_parameters_bert', 'BERT as a sentence encoder: post-LayerNorm blocks, one vector for a text (Devlin et al. 2018)', 'encoder', '{"pooling": {"type": "text", "default": "mean", "values": ["mean", "cls"], "doc": "what becomes of the tokens'' vectors: their mean, or the first one''s"}, "normalize": {"type": "boolean", "default": true, "doc": "whether embeddings have length 1"}, "type_vocab": {"type": "integer", "default": 2, "minimum": 1, "doc": "rows of the token types'' table; the first one is used"}, "max_tokens": {"type": "integer", "default": null, "minimum": 1, "maximum": "n_positions", "doc": "a longer text is cut to this many tokens; null: n_positions"}, "temperature": {"type": "number", "default": 0.05, "above": 0, "doc": "divides similarities in the contrastive loss"}, "prompts": {"type": "object", "default": {}, "doc": "what llm_embed puts before a text, by the prompt''s name"}, "default_prompt": {"type": "text", "default": null, "doc": "the prompt of a text for which none is named"}}')
ON CONFLICT DO NOTHING;

INSERT INTO public.llm_model_config (model, arch, n_layer, n_head, d_model, n_positions, vocab, layer_norm_eps, activation_function, tied, settings) VALUES
    ('gpt2-small', 'gpt2', 12, 12, 768, 1024, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt2-medium', 'gpt2', 24, 16, 1024, 1024, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt2-large', 'gpt2', 36, 20, 1280, 1024, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt2-xl', 'gpt2', 48, 25, 1600, 1024, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-125m', 'gpt3', 12, 12, 768, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-350m', 'gpt3', 24, 16, 1024, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-760m', 'gpt3', 24, 16, 1536, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-1.3b', 'gpt3', 24, 16, 2048, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-2.7b', 'gpt3', 32, 32, 2560, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-6.7b', 'gpt3', 32, 32, 4096, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-13b', 'gpt3', 40, 40, 5120, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('gpt3-175b', 'gpt3', 96, 96, 12288, 2048, 50257, 1e-05, 'gelu_new', true, '{}'),
    ('microgpt', 'microgpt', 1, 4, 16, 16, 27, 1e-05, 'gelu_new', false, '{}'),
    ('all-minilm-l6-v2', 'bert', 6, 12, 384, 512, 30522, 1e-12, 'gelu', true, '{"max_tokens": 256}')
ON CONFLICT DO NOTHING;
