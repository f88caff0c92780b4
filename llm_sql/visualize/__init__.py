"""Pictures of what the relations hold, one module per picture: training, flow, attention, graph, schema,
tape.

A picture's data comes from read.py (or memory.py, which records a pass without writing it) and is drawn apart
from it: `lines` for a terminal, `draw` into a file, `as_json` for programs.
"""
