/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Streams a disk through the block queue to workers that drop it; tells rate and CPU time.
 *
 *   bench-read SOURCE [--workers N] [--connections N] [--request BYTES] [--in-flight N] [--blocks N]
 *              [--all] [--zero-test]
 *   bench-read 127.0.0.1:PORT --certificate FILE --export NAME [...]
 *
 * SOURCE is an NBD URI, a file or a block device; with --certificate, a server with STARTTLS that must
 * show that certificate. Unallocated parts are skipped when the source tells them, unless --all.
 */
#include <getopt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "diff/changes.h"
#include "disk/disk.h"

#define BLOCK (1u << 20)
#define UNIT  65536u

struct settings {
    const char *source, *certificate, *export_name;
    uint32_t workers, blocks;
    bool all, zero_test;
    struct xv_nbd_options nbd;
};

struct worker {
    pthread_t thread;
    struct xv_block_queue *queue;
    bool zero_test;
    uint64_t bytes, zero;
};

static void die(const char *what, xvsa_error *error)
{
    fprintf(stderr, "bench-read: %s", what);
    for (const xvsa_error *e = error; e != NULL; e = xvsa_error_cause(e))
        fprintf(stderr, ": %s", xvsa_error_message(e));
    fputc('\n', stderr);
    exit(1);
}

static void *drop_blocks(void *argument)
{
    struct worker *worker = argument;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(worker->queue, NULL)) != NULL) {
        worker->bytes += block->length;
        for (uint32_t at = 0; worker->zero_test && at < block->length; at += UNIT) {
            uint32_t length = block->length - at < UNIT ? block->length - at : UNIT;
            if (xv_is_zero(block->data + at, length))
                worker->zero += length;
        }
        xv_block_queue_release(worker->queue, block);
    }
    return NULL;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_seconds(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static uint32_t number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value > UINT32_MAX)
        die("a number is expected", NULL);
    return (uint32_t)value;
}

static struct settings parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"workers", required_argument, NULL, 'w'}, {"connections", required_argument, NULL, 'c'},
        {"request", required_argument, NULL, 'r'}, {"in-flight", required_argument, NULL, 'f'},
        {"blocks", required_argument, NULL, 'b'},  {"all", no_argument, NULL, 'a'},
        {"zero-test", no_argument, NULL, 'z'},     {"certificate", required_argument, NULL, 'C'},
        {"export", required_argument, NULL, 'e'},  {NULL, 0, NULL, 0},
    };
    struct settings settings = {.workers = 2, .blocks = 24, .export_name = ""};
    settings.nbd.disk_name = "benchmark";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'w':
            settings.workers = number(optarg);
            break;
        case 'c':
            settings.nbd.connections = number(optarg);
            break;
        case 'r':
            settings.nbd.request_size = number(optarg);
            break;
        case 'f':
            settings.nbd.in_flight = number(optarg);
            break;
        case 'b':
            settings.blocks = number(optarg);
            break;
        case 'a':
            settings.all = true;
            break;
        case 'z':
            settings.zero_test = true;
            break;
        case 'C':
            settings.certificate = optarg;
            break;
        case 'e':
            settings.export_name = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (optind + 1 != argc || settings.workers == 0)
        die("one SOURCE and at least one worker are needed", NULL);
    settings.source = argv[optind];
    return settings;
}

static struct xv_disk *open_server(const struct settings *settings)
{
    static char pem[65536];
    char address[64];
    FILE *file = fopen(settings->certificate, "r");
    if (file == NULL || fread(pem, 1, sizeof pem - 1, file) == 0)
        die("cannot read the certificate", NULL);
    fclose(file);
    const char *colon = strrchr(settings->source, ':');
    if (colon == NULL || (size_t)(colon - settings->source) >= sizeof address)
        die("ADDRESS:PORT is expected", NULL);
    snprintf(address, sizeof address, "%.*s", (int)(colon - settings->source), settings->source);
    struct xv_nbd_server server = {.address = address,
                                   .port = (uint16_t)number(colon + 1),
                                   .export_name = settings->export_name,
                                   .certificate = pem};
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    if (xv_nbd_disk_open(&server, 1, &settings->nbd, NULL, &disk, &error) != 0)
        die("cannot open the disk", error);
    return disk;
}

static struct xv_disk *open_source(const struct settings *settings)
{
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    if (settings->certificate != NULL)
        return open_server(settings);
    int rc = strncmp(settings->source, "nbd", 3) == 0
                 ? xv_nbd_disk_open_uri(settings->source, &settings->nbd, NULL, &disk, &error)
                 : xv_file_disk_open(settings->source, NULL, &disk, &error);
    if (rc != 0)
        die("cannot open the disk", error);
    return disk;
}

static void find_ranges(const struct settings *settings, struct xv_disk *disk,
                        struct xv_extents *ranges)
{
    struct xv_extents found;
    xvsa_error *error = NULL;
    xv_extents_init(&found);
    xv_extents_init(ranges);
    int rc = settings->all ? XVSA_ERR_UNSUPPORTED : xv_disk_allocated(disk, &found, NULL, &error);
    if (rc == XVSA_ERR_UNSUPPORTED) {
        xv_error_clear(&error);
        rc = xv_extents_add(&found, 0, disk->size, &error);
    }
    if (rc == 0)
        rc = xv_extents_align(&found, UNIT, disk->size, ranges, &error);
    if (rc != 0)
        die("cannot find the ranges to read", error);
    xv_extents_free(&found);
}

static void stream(const struct settings *settings, struct xv_disk *disk,
                   const struct xv_extents *ranges, struct worker *workers)
{
    struct xv_block_queue *queue = NULL;
    xvsa_error *error = NULL;
    if (xv_block_queue_new(settings->blocks, BLOCK, &queue, &error) != 0)
        die("cannot make the queue", error);
    for (uint32_t i = 0; i < settings->workers; i++) {
        workers[i] = (struct worker){.queue = queue, .zero_test = settings->zero_test};
        if (pthread_create(&workers[i].thread, NULL, drop_blocks, &workers[i]) != 0)
            die("cannot start a worker", NULL);
    }
    if (xv_disk_stream(disk, ranges, queue, NULL, NULL, &error) != 0)
        die("cannot read", error);
    xv_block_queue_close(queue);
    for (uint32_t i = 0; i < settings->workers; i++)
        pthread_join(workers[i].thread, NULL);
    xv_block_queue_free(queue);
}

int main(int argc, char **argv)
{
    struct settings settings = parse(argc, argv);
    struct worker *workers = calloc(settings.workers, sizeof *workers);
    struct xv_extents ranges;
    if (workers == NULL)
        die("out of memory", NULL);
    double begin = seconds();
    struct xv_disk *disk = open_source(&settings);
    find_ranges(&settings, disk, &ranges);
    stream(&settings, disk, &ranges, workers);
    double wall = seconds() - begin;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    uint64_t bytes = 0, zero = 0;
    for (uint32_t i = 0; i < settings.workers; i++) {
        bytes += workers[i].bytes;
        zero += workers[i].zero;
    }
    printf(
        "%llu of %llu bytes (%llu zero) in %.3f s: %.0f MB/s, %.3f CPU s/GiB, %ld MiB resident\n",
        (unsigned long long)bytes, (unsigned long long)disk->size, (unsigned long long)zero, wall,
        (double)bytes / wall / 1e6, cpu_seconds(&usage) / ((double)bytes / (1u << 30)),
        usage.ru_maxrss / 1024);
    xv_extents_free(&ranges);
    xv_disk_close(disk);
    free(workers);
    return 0;
}
