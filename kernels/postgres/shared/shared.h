/*
 * shared.h -- one copy of a model's weights per server: immutable files that sessions map to read.
 *
 *   shared_rows.c     which version a caller's snapshot shows: his right to a file, and its name
 *   shared_file.c     what a file says about itself, and whether to believe it
 *   shared_build.c    writing one
 *   shared_float32.c  of what: the numbers in the rows; in fewer bits, params/packed.c says
 *   shared_map.c      mapping one
 *   shared_dir.c      settings, the directory, and which files go
 *   shared_list.c     files as SQL sees them
 *
 * A file belongs to one version of one model in one precision. Its name and its header hold a hash over the rows of
 * llm_param it was made of: over their TOAST pointers, which stand for values that never change, and over the contents of
 * values that have none. This library alone computes the hash, from rows that the executor has just given to the caller:
 * whose query shows all of these rows, their data included, may map; nobody can name a version he has not read, and a
 * privilege that is revoked, or a row policy, takes effect at the next look. Numbers go into a file from the rows
 * themselves, never from a session's memory, so nobody can put his own under another's name; those in fewer bits are
 * made of the float32 file's, and who has that one mapped may map them.
 *
 * Only committed versions are written. A hash names other numbers only after the server's start: a row's transaction id,
 * which is part of it, does not come again while the server runs, for what a file is made of is on disk first; and no
 * file of an earlier start is believed.
 *
 * Anything that fails on the way leaves the session with a copy of its own, and says so once.
 */
#ifndef PG_LLM_SHARED_H
#define PG_LLM_SHARED_H

#include "postgres.h"

#include <sys/stat.h>

#include "access/xact.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#include "core/llm_core.h"
#include "tensor/tensor.h"

#define SHARED_VERSION_BYTES 32 /* of a version's hash */

/* ---- rows (shared_rows.c) ---- */

typedef struct SharedRow
{
    char *name;
    int32 token_id;
    Datum data; /* as it is stored */
} SharedRow;

/* A version of a model as the caller's snapshot shows it, in a memory context of its own. */
typedef struct SharedRows
{
    MemoryContext context;
    char         *model;
    uint64        model_hash;
    int           n;
    SharedRow    *rows;   /* by name and token_id */
    bool          own;    /* this transaction wrote some of them: nobody else may see them yet */
    TimestampTz   newest; /* the last change; 0: unknown */
    uint8         version[SHARED_VERSION_BYTES];
} SharedRows;

/* The rows of llm_param with data that the caller sees; errors are PostgreSQL's own. `fcinfo`: of a function of ours */
extern SharedRows *shared_rows_read(FunctionCallInfo fcinfo, const char *model);
extern void        shared_rows_free(SharedRows *rows);
extern uint64      shared_model_hash(const char *model);

/* ---- what a file says (shared_file.c) ---- */

#define SHARED_FORMAT     1
#define SHARED_ALIGNMENT  64   /* of a tensor's numbers */
#define SHARED_PAGE       4096 /* numbers begin at a multiple */
#define SHARED_TRANSPOSED 1    /* flag of a tensor: a matrix as (out,in) */
#define SHARED_HALVES     2    /* of a matrix in a float32 file: its numbers are there as bf16 */

typedef struct SharedHeader
{
    char   magic[8];
    uint32 byte_order;
    uint32 format;
    uint32 precision; /* llm_precision */
    uint32 numerics;  /* of the library that wrote it */
    uint32 packing;
    uint32 database;
    uint64 system;   /* identifier of the cluster */
    uint64 place;    /* of its data directory */
    int64  started;  /* the server */
    int64  built_at; /* TimestampTz */
    uint64 data_at;  /* the table lies between header and numbers */
    uint64 bytes;    /* of the whole file */
    uint32 n_tensors;
    uint32 n_parts;
    uint32 text_bytes; /* of the model's name and the tensors', each with a zero byte */
    uint32 crc;        /* of the header with crc = 0 and the table, CRC-32C */
    uint8  version[SHARED_VERSION_BYTES];
} SharedHeader;

/* A parameter; in fewer bits a matrix, its dims being (inputs, outputs), without parts. Sorted by name and flags. */
typedef struct SharedTensor
{
    uint64 at; /* from the start of the file */
    uint64 bytes;
    uint32 name; /* where it begins in the text */
    uint32 flags;
    uint32 first_part;
    uint32 n_parts;
    int32  ndim;
    int32  dims[TENSOR_MAX_NDIM];
    uint32 unused;
} SharedTensor;

/* A row of llm_param that a parameter was joined from. */
typedef struct SharedPart
{
    int32 token_id;
    int32 rows;
} SharedPart;

/* A file's header and table, checked, in one piece of memory. */
typedef struct SharedTable
{
    SharedHeader  header;
    SharedTensor *tensors;
    SharedPart   *parts;
    char         *text; /* begins with the model's name */
} SharedTable;

/* palloc'd; NULL: no file that is to be believed, or *error tells why it could not be read. */
extern SharedTable *shared_file_read(int fd, const struct stat *about, int *error);
/* Room for the table that a header with its numbers set speaks of, palloc'd; NULL: too large. */
extern SharedTable *shared_table_new(const SharedHeader *h);
extern uint64       shared_table_bytes(const SharedHeader *h);
/* All else that a header says, before the numbers are written; the sum of it, after. */
extern void shared_header_init(SharedHeader *h, const SharedRows *rows, llm_precision precision, size_t data_bytes);
extern void shared_header_seal(SharedTable *t);
/* A regular file of this server's account, nobody else's to write. */
extern bool shared_file_ours(const struct stat *about);

/* ---- building (shared_build.c) ---- */

typedef struct SharedMapping SharedMapping;
typedef struct SharedWriter  SharedWriter;

typedef struct SharedContent SharedContent;

/* What is to be written. */
struct SharedContent
{
    llm_precision precision;
    uint32        n_tensors, n_parts, text_bytes; /* of the table */
    size_t        data_bytes;                     /* at most, without what alignment takes */
    size_t        beside;                         /* bytes of files that it is of no use without */
    bool          patient;                        /* waits a while for another session that writes the model's files */
    /*
     * Whether the file that is there (NULL: none) has less than what is to be written, which then takes its place; the
     * numbers above are set here, while no other session writes. NULL: a file that is there has everything.
     */
    bool (*more)(SharedContent *content, const SharedMapping *there);
    /* Puts the numbers one by one and fills in the table, whose room is zeros; false: they are not fit for a file. */
    bool (*write)(SharedWriter *w, SharedTable *t, void *arg);
    void *arg;
};

/*
 * Writes this version's file, unless another session does so meanwhile, and maps it. NULL: it could not be written, which
 * a notice says, or not in time. Only one session writes a model's files at a time.
 */
extern SharedMapping *shared_build(const SharedRows *rows, SharedContent *content);
/* Appends bytes; where they begin, at a multiple of SHARED_ALIGNMENT if `aligned`. False: an error the writer keeps. */
extern bool shared_put(SharedWriter *w, const void *bytes, size_t n, bool aligned, uint64 *at);
/* A name into the table's text; where it begins. `at`: where the text ends so far. */
extern uint32 shared_put_text(SharedTable *t, uint32 *at, const char *s);

/*
 * The file of the numbers in the rows (shared_float32.c). For who reads weights in fewer bits, matrices that are stored as
 * bf16 stay so, unless there is a file already; who needs float32 has such a file replaced.
 */
extern SharedMapping *shared_build_float32(const SharedRows *rows, bool patient);

/* ---- mapping (shared_map.c) ---- */

struct SharedMapping
{
    SharedMapping *next;
    MemoryContext  context; /* everything but the mapping */
    int            refs;
    char          *base;
    size_t         bytes;
    SharedTable   *table;
    dev_t          device;
    ino_t          inode;
    char          *path;
};

/* The version's file, whole, with a reference that is the caller's; NULL: there is none that can be used. */
extern SharedMapping *shared_map(const SharedRows *rows, llm_precision precision);
extern SharedMapping *shared_mapping_retain(SharedMapping *m);
extern void           shared_mapping_release(SharedMapping *m);        /* never throws */
extern bool           shared_mapping_lazy(const SharedMapping *m);     /* some matrices are there as bf16 */
extern bool           shared_mapping_outdated(const SharedMapping *m); /* its file is gone; never throws */
/* Memory in a mapping as a tensor's, which holds the mapping; nobody may write to it. */
extern TensorBuffer *shared_mapping_buffer(SharedMapping *m, const SharedTensor *t);
/* A matrix in fewer bits as it lies in a mapping, which has to outlive it; NULL: there is none. Never throws. */
extern llm_packed *shared_mapping_packed(const SharedMapping *m, const char *name, uint32 flags, const int32 *dims);
/* Large pages for memory that a session has just filled, where the system would not give them by itself. */
extern void shared_mapping_collapse(const SharedMapping *m);

/* ---- directory and settings (shared_dir.c) ---- */

extern int pg_llm_shared_age_ms; /* setting */

extern void        shared_init(void); /* the settings; called once by _PG_init */
extern bool        shared_enabled(void);
extern uint64      shared_place(void); /* tells servers that use one directory apart; 0: unknown */
extern size_t      shared_limit(void); /* bytes that all files may take */
extern const char *shared_directory(void);
extern bool        shared_make_directory(void); /* false: errno tells why */
extern char       *shared_path(const SharedRows *rows, llm_precision precision);
/* Why a version is not shared, once per session and errno; 0: `what` is the reason. */
extern void shared_notice(int error, const char *what);

typedef struct SharedEntry
{
    char        path[MAXPGPATH];
    char        version[2 * SHARED_VERSION_BYTES + 1];
    Oid         database;
    uint64      model_hash;
    bool        temporary; /* being written, or left by a crash */
    bool        float32;
    struct stat about;
} SharedEntry;

/* The files of this server, palloc'd; never throws. */
extern SharedEntry *shared_entries(int *n);
extern int64        shared_unlink_model(uint64 model_hash); /* in this database; their bytes. Never throws. */
/* Bytes of other models' files that sessions took up within pg_llm.shared_age, which a new one must not push out. */
extern size_t shared_in_use(uint64 model_hash);
/* After a file was written: outdated ones go, what crashes left, and the least recently used above the limit. */
extern void shared_trim(uint64 model_hash, const char *keep);

/* ---- what ends with a transaction (shared_list.c); never throw ---- */

extern void shared_end_xact(XactEvent event);
extern void shared_end_subxact(bool commit);

#endif
