"""GPT models whose weights, training, tokenizer and text generation live inside PostgreSQL."""
