# cython: language_level=3
"""The engine of kernels/core/llm_core.h for NumPy float32 arrays.

Every op is a method of Engine that checks shapes and ids, runs without the GIL and returns new arrays. Backward methods
return gradients; where one takes `dx=` (`dw=`, ...), None writes a new gradient, an array is a gradient so far that the
new one is added to (the result is a new array), and False leaves that gradient out (None is returned for it).
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uintptr_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import math
import threading

import numpy as np

# A cdef class cannot be spread over files, so each file of ops extends the class before it:
# EngineState < LinearOps < ElementwiseOps < RowOps < AttentionOps < LossOps < PackedOps < Engine.
include "declarations.pxi"
include "arrays.pxi"
include "functions.pxi"
include "engine.pxi"
include "linear.pxi"
include "elementwise.pxi"
include "rows.pxi"
include "attention.pxi"
include "loss.pxi"
include "quantized.pxi"
include "decode.pxi"
include "bpe.pxi"
include "wordpiece.pxi"
include "weights.pxi"


cdef class Engine(PackedOps):
    """How ops run: instruction set (None: the best), threads (0: all cores), query rows that attention takes at a time.

    None of these changes a bit of any result. One op runs at a time; other Python threads go on meanwhile.
    """
