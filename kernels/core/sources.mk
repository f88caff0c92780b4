# The core's sources and flags.
# CORE_ISA_SOURCES are compiled with CORE_FLAGS plus FLAGS_<machine>_<stem>, where machine is `uname -m`
# (x86_64, aarch64; arm64 counts as aarch64) and an absent name means no flags.
CORE_SOURCES = \
    engine/engine.c engine/memory.c engine/pool.c engine/random.c engine/scalar_math.c \
    products/gemm.c products/row_product.c products/linear.c products/quantized.c products/int4_blocks.c \
    ops/attention.c ops/kv_cache.c ops/rows.c ops/elementwise.c ops/embedding.c ops/loss.c ops/rotary.c ops/optimizer.c \
    ops/sample.c ops/schedule.c ops/sequences.c \
    measure/measure.c measure/measure_decode.c \
    tokenizer/bytes_map.c tokenizer/bpe.c tokenizer/bpe_added.c tokenizer/bpe_merge.c tokenizer/bpe_text.c \
    tokenizer/bpe_files.c tokenizer/bpe_pieces.c tokenizer/bpe_recover.c tokenizer/bpe_sentencepiece.c tokenizer/bpe_train.c \
    tokenizer/bert_text.c tokenizer/nfc.c tokenizer/wordpiece.c tokenizer/wordpiece_files.c \
    formats/weights.c formats/weights_read.c formats/weights_types.c formats/safetensors.c formats/npy.c \
    formats/zip.c formats/gzip.c formats/inflate.c formats/inflate_codes.c formats/crc32.c formats/weights_write.c \
    formats/weights_headers.c formats/zip_write.c formats/gzip_write.c
CORE_ISA_SOURCES = isa/isa_scalar.c isa/isa_avx2.c isa/isa_avx512.c isa/isa_neon.c
CORE_FLAGS = -std=c11 -O3 -ffp-contract=off -fno-math-errno -fvisibility=hidden -pthread
CORE_LIBS = -lm -lpthread
FLAGS_x86_64_isa_avx2 = -mavx2 -mfma
FLAGS_x86_64_isa_avx512 = -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
