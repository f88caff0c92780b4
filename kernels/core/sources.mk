# The core's sources and flags.
# CORE_ISA_SOURCES are compiled with CORE_FLAGS plus FLAGS_<machine>_<stem>, where machine is `uname -m`
# (x86_64, aarch64; arm64 counts as aarch64) and an absent name means no flags.
CORE_SOURCES = engine.c memory.c pool.c gemm.c row_product.c linear.c quantized.c attention.c kv_cache.c rows.c elementwise.c embedding.c loss.c optimizer.c random.c sample.c schedule.c scalar_math.c measure.c measure_decode.c weights.c weights_read.c weights_types.c safetensors.c npy.c zip.c gzip.c inflate.c inflate_codes.c crc32.c weights_write.c weights_headers.c zip_write.c gzip_write.c bytes_map.c bpe.c bpe_added.c bpe_merge.c bpe_text.c bpe_files.c bpe_recover.c bpe_train.c
CORE_ISA_SOURCES = isa_scalar.c isa_avx2.c isa_avx512.c isa_neon.c
CORE_FLAGS = -std=c11 -O3 -ffp-contract=off -fno-math-errno -fvisibility=hidden -pthread
CORE_LIBS = -lm -lpthread
FLAGS_x86_64_isa_avx2 = -mavx2 -mfma
FLAGS_x86_64_isa_avx512 = -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
