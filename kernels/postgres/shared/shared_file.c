/*
 * shared_file.c -- what a shared file says about itself, and whether to believe it.
 *
 *   header           SharedHeader
 *   tensors          SharedTensor[n_tensors]
 *   parts            SharedPart[n_parts]
 *   text             the model's name and the tensors' names
 *   numbers          from data_at on, each tensor's from a multiple of SHARED_ALIGNMENT
 *
 * Header and table are read, not mapped, and checked in this session's memory, where nobody can change them between the
 * check and the use. Every size and every place in them is held against the size of the file.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/memutils.h"

#include "core/engine/numerics.h"
#include "shared.h"

#define MAGIC           "pg_llm\0w"
#define BYTE_ORDER_MARK 0x01020304
#define HUGE_DATA       ((size_t) 32 << 20)
#define HUGE_PAGE       ((size_t) 2 << 20)
#define MAX_TABLE       ((uint64) 1 << 30)

uint64
shared_table_bytes(const SharedHeader *h)
{
    return (uint64) h->n_tensors * sizeof(SharedTensor) + (uint64) h->n_parts * sizeof(SharedPart) + h->text_bytes;
}

SharedTable *
shared_table_new(const SharedHeader *h)
{
    size_t       bytes = sizeof(SharedTable) + shared_table_bytes(h);
    SharedTable *t;

    if (shared_table_bytes(h) > MAX_TABLE)
        return NULL;
    t = palloc_extended(bytes, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
    if (t == NULL)
        return NULL;
    t->header = *h;
    t->tensors = (SharedTensor *) (t + 1);
    t->parts = (SharedPart *) (t->tensors + h->n_tensors);
    t->text = (char *) (t->parts + h->n_parts);
    return t;
}

void
shared_header_init(SharedHeader *h, const SharedRows *rows, llm_precision precision, size_t data_bytes)
{
    size_t end = sizeof(SharedHeader) + shared_table_bytes(h);
    size_t page = data_bytes >= HUGE_DATA ? HUGE_PAGE : SHARED_PAGE; /* numbers that fill large pages begin at one */

    h->data_at = (end + page - 1) / page * page;
    memcpy(h->magic, MAGIC, sizeof(h->magic));
    h->byte_order = BYTE_ORDER_MARK;
    h->format = SHARED_FORMAT;
    h->precision = precision;
    h->numerics = LLM_NUMERICS_VERSION;
    h->packing = LLM_PACKING_VERSION;
    h->database = MyDatabaseId;
    h->system = GetSystemIdentifier();
    h->place = shared_place();
    h->started = PgStartTime;
    h->built_at = GetCurrentTimestamp();
    memcpy(h->version, rows->version, SHARED_VERSION_BYTES);
}

static uint32
checksum(const SharedTable *t)
{
    SharedHeader h = t->header;
    pg_crc32c    crc;

    h.crc = 0;
    INIT_CRC32C(crc);
    COMP_CRC32C(crc, &h, sizeof(h));
    COMP_CRC32C(crc, t->tensors, shared_table_bytes(&h));
    FIN_CRC32C(crc);
    return crc;
}

void
shared_header_seal(SharedTable *t)
{
    t->header.crc = checksum(t);
}

bool
shared_file_ours(const struct stat *about)
{
    return S_ISREG(about->st_mode) && about->st_uid == geteuid() && (about->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Written by this library for this server since it was started. */
static bool
header_fits(const SharedHeader *h, const struct stat *about)
{
    return memcmp(h->magic, MAGIC, sizeof(h->magic)) == 0 && h->byte_order == BYTE_ORDER_MARK &&
           h->format == SHARED_FORMAT && h->numerics == LLM_NUMERICS_VERSION && h->packing == LLM_PACKING_VERSION &&
           h->precision < LLM_PRECISIONS && h->database == MyDatabaseId && h->system == GetSystemIdentifier() &&
           h->place == shared_place() && h->started == PgStartTime && about->st_size > 0 &&
           h->bytes == (uint64) about->st_size && h->text_bytes > 0 && h->data_at <= h->bytes &&
           h->data_at % SHARED_PAGE == 0 && sizeof(SharedHeader) + shared_table_bytes(h) <= h->data_at;
}

/* The tensor's numbers lie in the file, and its shape is theirs. */
static bool
tensor_fits(const SharedTable *t, const SharedTensor *tensor)
{
    const SharedHeader *h = &t->header;
    uint64              n = 1;
    int64               rows = 0;

    if (tensor->at < h->data_at || tensor->at > h->bytes || tensor->bytes > h->bytes - tensor->at ||
        tensor->at % SHARED_ALIGNMENT != 0 || tensor->name >= h->text_bytes || tensor->ndim < 0 ||
        tensor->ndim > TENSOR_MAX_NDIM || tensor->first_part > h->n_parts ||
        tensor->n_parts > h->n_parts - tensor->first_part)
        return false;
    for (int i = 0; i < tensor->ndim; i++)
    {
        if (tensor->dims[i] < 0 || (tensor->dims[i] > 0 && n > h->bytes / (uint64) tensor->dims[i]))
            return false;
        n *= (uint64) tensor->dims[i];
    }
    if (h->precision != LLM_FLOAT32)
        return tensor->n_parts == 0 && tensor->ndim == 2 && (tensor->flags & ~(uint32) SHARED_TRANSPOSED) == 0 &&
               tensor->bytes == llm_pack_bytes(tensor->dims[0], tensor->dims[1], (llm_precision) h->precision);
    if (tensor->flags == SHARED_HALVES ? tensor->ndim != 2 || tensor->bytes != n * sizeof(uint16)
                                       : tensor->flags != 0 || tensor->bytes != n * sizeof(float))
        return false;
    if (tensor->n_parts == 0)
        return false;
    for (uint32 i = 0; i < tensor->n_parts; i++)
    {
        const SharedPart *part = &t->parts[tensor->first_part + i];

        if (part->rows < 0 || part->token_id != rows)
            return false;
        rows += part->rows;
    }
    return rows == (tensor->ndim > 0 ? tensor->dims[0] : 1);
}

static bool
table_fits(const SharedTable *t)
{
    const SharedHeader *h = &t->header;

    if (t->text[h->text_bytes - 1] != '\0')
        return false;
    for (uint32 i = 0; i < h->n_tensors; i++)
    {
        const SharedTensor *tensor = &t->tensors[i], *before = tensor - 1;
        int                 order;

        if (!tensor_fits(t, tensor))
            return false;
        order = i == 0 ? -1 : strcmp(t->text + before->name, t->text + tensor->name);
        if (order > 0 || (order == 0 && before->flags >= tensor->flags))
            return false;
    }
    return true;
}

static bool
read_all(int fd, void *out, size_t n, off_t at, int *error)
{
    while (n > 0)
    {
        ssize_t got = pread(fd, out, n, at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
        {
            *error = got < 0 ? errno : 0;
            return false;
        }
        out = (char *) out + got;
        n -= (size_t) got;
        at += got;
    }
    return true;
}

SharedTable *
shared_file_read(int fd, const struct stat *about, int *error)
{
    SharedHeader h;
    SharedTable *t;

    *error = 0;
    if (!shared_file_ours(about) || !read_all(fd, &h, sizeof(h), 0, error) || !header_fits(&h, about))
        return NULL;
    t = shared_table_new(&h);
    if (t == NULL)
        return NULL;
    if (read_all(fd, t->tensors, shared_table_bytes(&h), sizeof(h), error) && checksum(t) == h.crc && table_fits(t))
        return t;
    pfree(t);
    return NULL;
}
