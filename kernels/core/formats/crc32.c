/*
 * crc32.c -- CRC-32 (ISO 3309), four bytes at a time.
 */
#include "inflate.h"

static uint32_t crc_table[4][256];
static volatile bool crc_ready = false;

/* Every thread that races here writes the same values. */
static void crc_prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int k = 0; k < 8; k++)
            c = (c >> 1) ^ (0xedb88320u & (0u - (c & 1)));
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 4; t++)
            crc_table[t][i] = (crc_table[t - 1][i] >> 8) ^ crc_table[0][crc_table[t - 1][i] & 255];
    crc_ready = true;
}

uint32_t llm_crc32(uint32_t crc, const uint8_t *bytes, size_t n)
{
    if (!crc_ready)
        crc_prepare();
    crc = ~crc;
    for (; n >= 4; n -= 4, bytes += 4) {
        crc ^= (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
        crc = crc_table[3][crc & 255] ^ crc_table[2][(crc >> 8) & 255] ^ crc_table[1][(crc >> 16) & 255] ^
              crc_table[0][crc >> 24];
    }
    for (; n > 0; n--, bytes++)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *bytes) & 255];
    return ~crc;
}
