/*
 * replay.c -- files through a fuzz target without a fuzzer: replay TARGET DIRECTORY..., all files of each
 * directory.
 *
 * A target aborts, or a sanitizer stops the program, where something is wrong. Prints how many inputs it ran.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int target_function(const uint8_t *bytes, size_t size);

#define TARGET(name) extern target_function target_##name;
#include "targets.h"
#undef TARGET

static const struct {
    const char *name;
    target_function *run;
} targets[] = {
#define TARGET(name) { #name, target_##name },
#include "targets.h"
#undef TARGET
};

/* The file in memory of exactly its size, so that a read behind its end is noticed. */
static void run_file(target_function *run, const char *path)
{
    FILE *file = fopen(path, "rb");
    long size;
    uint8_t *bytes;

    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(2);
    }
    bytes = malloc((size_t)size);
    if (size > 0 && fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(2);
    }
    fclose(file);
    run(bytes, (size_t)size);
    free(bytes);
}

static int run_directory(target_function *run, const char *directory)
{
    DIR *opened = opendir(directory);
    int n = 0;

    if (opened == NULL) {
        fprintf(stderr, "%s is no directory\n", directory);
        exit(2);
    }
    for (struct dirent *entry; (entry = readdir(opened)) != NULL;) {
        char path[4096];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        run_file(run, path);
        n++;
    }
    closedir(opened);
    return n;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++)
        if (argc > 2 && strcmp(argv[1], targets[i].name) == 0) {
            int n = 0;

            for (int k = 2; k < argc; k++)
                n += run_directory(targets[i].run, argv[k]);
            printf("%d\n", n);
            return 0;
        }
    fprintf(stderr, "usage: replay TARGET DIRECTORY...\n");
    return 2;
}
