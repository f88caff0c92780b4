"""The architectures of every database, whose functions stand in models/functions/forward_*.sql."""

from __future__ import annotations

from .bert import bert
from .gpt import gpt2, gpt3, microgpt
from .llama import llama
from .neox import neox
from .opt import opt

ARCHITECTURES = (gpt2, gpt3, microgpt, bert, llama, neox, opt)
