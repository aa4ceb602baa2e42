/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A repository under the commands of a test, which come line by line; each is answered with one
 * line, "ok", "ok VALUE" or "error CODE MESSAGE". Words have no spaces. The end of input ends the
 * program as if it were killed: sessions stay as they are.
 *
 *     format-repo DIR init|open PASSPHRASE-FILE|- CHUNK-SIZE
 *
 *     begin SESSION KEY TOKEN POINT|-      SESSION is a digit; answers with the base or "-"
 *     disk SESSION KEY SIZE BASE-INDEX     the session's disk until finish
 *     put SESSION OFFSET LENGTH FILE       bytes [OFFSET, OFFSET + LENGTH) of FILE
 *     keep SESSION OFFSET LENGTH
 *     finish SESSION
 *     checkpoint SESSION
 *     commit SESSION VM-UUID VM-NAME TAKEN answers with the point
 *     abort SESSION
 *     delete POINT
 *     list                                 answers with the document "points"
 *     restore POINT INDEX FILE             data ranges only
 *     extents POINT INDEX                  answers with [[offset, length, kind], ...]
 *     verify                               answers with the number of faults, and the first
 *
 * and those of works, which are in repo_work.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repo_commands.h"

#define SESSIONS 10
#define WORDS    10
#define RUNS     64
#define FAULT    1024

struct xv_repo *repo;
static struct slot slots[SESSIONS];

void die(const char *what)
{
    fprintf(stderr, "format-repo: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* Answers a failed command, on one line; returns rc. */
int refuse(int rc, xvsa_error *error)
{
    printf("error %s", xvsa_code_name(rc));
    for (const xvsa_error *e = error; e != NULL; e = xvsa_error_cause(e)) {
        putchar(' ');
        for (const char *c = xvsa_error_message(e); *c != '\0'; c++)
            putchar(*c == '\n' ? ' ' : *c);
    }
    putchar('\n');
    xvsa_error_unref(error);
    return rc;
}

int answer(const char *value)
{
    printf("ok%s%s\n", value[0] == '\0' ? "" : " ", value);
    return 0;
}

uint64_t number(const char *word)
{
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(word, &end, 10);
    if (errno != 0 || *end != '\0' || end == word) {
        errno = EINVAL;
        die(word);
    }
    return value;
}

/* The disk that the session works on. */
struct xv_disk_writer *writer_of(const struct slot *slot)
{
    if (slot->disks == 0) {
        errno = ENOENT;
        die("disk");
    }
    return slot->writers[slot->disks - 1];
}

struct slot *slot_of(const char *word)
{
    uint64_t index = number(word);
    if (index >= SESSIONS) {
        errno = ERANGE;
        die(word);
    }
    return &slots[index];
}

void clear_slot(struct slot *slot)
{
    xv_packer_free(slot->packer);
    for (unsigned i = 0; i < slot->disks; i++)
        xv_disk_writer_free(slot->writers[i]);
    xv_session_free(slot->session);
    xv_point_unref(slot->base);
    *slot = (struct slot){0};
}

int begin(char **words, const char *work, uint32_t kind)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    clear_slot(slot);
    struct xv_session_options options = {
        .job_key = words[1], .token = number(words[2]), .kind = kind, .work_id = work};
    int rc = 0;
    if (strcmp(words[3], "-") != 0)
        rc = xv_repo_find_point(repo, words[3], NULL, &slot->base, &error);
    options.base = slot->base;
    if (rc == 0)
        rc = xv_session_begin(repo, &options, NULL, &slot->session, &error);
    if (rc == 0)
        rc = xv_packer_new(slot->session, &slot->packer, &error);
    if (rc != 0) {
        clear_slot(slot);
        return refuse(rc, error);
    }
    struct xv_point *base = xv_session_base(slot->session);
    return answer(base == NULL ? "-" : xv_point_id(base));
}

static int do_begin(char **words)
{
    return begin(words, NULL, XV_SESSION_BACKUP);
}

static int do_disk(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    char device[24];
    int base = strcmp(words[3], "-") == 0 ? -1 : (int)number(words[3]);
    if (slot->disks == DISKS) {
        errno = ERANGE;
        die("disk");
    }
    snprintf(device, sizeof device, "%u", slot->disks);
    int rc = xv_session_add_disk(slot->session, words[1], device, number(words[2]), base, NULL,
                                 &slot->writers[slot->disks], &error);
    if (rc == 0)
        slot->disks++;
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_put(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    uint64_t offset = number(words[1]), length = number(words[2]);
    uint8_t *data = malloc(length + 1);
    int fd = open(words[3], O_RDONLY | O_CLOEXEC);
    if (data == NULL || fd < 0 || pread(fd, data, length, (off_t)offset) != (ssize_t)length)
        die(words[3]);
    close(fd);
    int rc = xv_packer_put(slot->packer, writer_of(slot), offset, data, length, NULL, &error);
    free(data);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_keep(char **words)
{
    xvsa_error *error = NULL;
    struct xv_extents ranges;
    xv_extents_init(&ranges);
    int rc = xv_extents_add(&ranges, number(words[1]), number(words[2]), &error);
    if (rc == 0)
        rc = xv_disk_writer_keep(writer_of(slot_of(words[0])), &ranges, NULL, &error);
    xv_extents_free(&ranges);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_finish(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    int rc = xv_packer_flush(slot->packer, NULL, &error);
    if (rc == 0)
        rc = xv_disk_writer_finish(writer_of(slot), "{\"made\":\"for a test\"}", NULL, &error);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_checkpoint(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    int rc = xv_packer_flush(slot->packer, NULL, &error);
    if (rc == 0)
        rc = xv_session_checkpoint(slot->session, NULL, &error);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_commit(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    char id[XV_POINT_ID_LENGTH + 1];
    struct xv_point_facts facts = {.vm_uuid = words[1],
                                   .vm_name = words[2],
                                   .pool_uuid = "pool",
                                   .job_id = "job",
                                   .taken_ms = (int64_t)number(words[3]),
                                   .metadata = "{\"vm\":\"r\xc3\xa9sum\xc3\xa9\"}"};
    int rc = xv_session_commit(slot->session, &facts, NULL, id, &error);
    clear_slot(slot);
    return rc != 0 ? refuse(rc, error) : answer(id);
}

static int do_abort(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    int rc = xv_session_abort(slot->session, NULL, &error);
    clear_slot(slot);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_delete(char **words)
{
    xvsa_error *error = NULL;
    struct xv_point *point = NULL;
    int rc = xv_repo_find_point(repo, words[0], NULL, &point, &error);
    if (rc == 0)
        rc = xv_point_delete(point, NULL, &error);
    xv_point_unref(point);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_list(char **words)
{
    xvsa_error *error = NULL;
    char *json = NULL;
    (void)words;
    int rc = xv_repo_list_points(repo, NULL, NULL, &json, &error);
    if (rc != 0)
        return refuse(rc, error);
    for (char *c = json; *c != '\0'; c++) {
        if (*c == '\n')
            *c = ' ';
    }
    answer(json);
    free(json);
    return 0;
}

static int open_disk(char **words, struct xv_disk **ret, xvsa_error **error)
{
    struct xv_point *point = NULL;
    int rc = xv_repo_find_point(repo, words[0], NULL, &point, error);
    if (rc == 0)
        rc = xv_point_open_disk(point, (size_t)number(words[1]), NULL, ret, error);
    xv_point_unref(point);
    return rc;
}

static int copy_ranges(struct xv_disk *disk, const struct xv_extents *data, int fd,
                       xvsa_error **error)
{
    static uint8_t bytes[1u << 20];
    int rc = 0;
    for (size_t i = 0; i < data->count && rc == 0; i++) {
        uint64_t end = data->ranges[i].offset + data->ranges[i].length;
        for (uint64_t at = data->ranges[i].offset; at < end && rc == 0; at += sizeof bytes) {
            size_t length = end - at < sizeof bytes ? (size_t)(end - at) : sizeof bytes;
            rc = xv_disk_read(disk, at, bytes, length, NULL, error);
            if (rc == 0 && pwrite(fd, bytes, length, (off_t)at) != (ssize_t)length)
                die("restore");
        }
    }
    return rc;
}

static int do_restore(char **words)
{
    xvsa_error *error = NULL;
    struct xv_disk *disk = NULL;
    struct xv_extents data;
    xv_extents_init(&data);
    int rc = open_disk(words, &disk, &error);
    if (rc == 0)
        rc = xv_disk_allocated(disk, &data, NULL, &error);
    if (rc == 0) {
        int fd = open(words[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)disk->size) != 0)
            die(words[2]);
        rc = copy_ranges(disk, &data, fd, &error);
        if (close(fd) != 0)
            die(words[2]);
    }
    xv_extents_free(&data);
    xv_disk_close(disk);
    return rc != 0 ? refuse(rc, error) : answer("");
}

static int do_extents(char **words)
{
    xvsa_error *error = NULL;
    struct xv_disk *disk = NULL;
    xvsa_extent runs[RUNS];
    uint32_t count = 0;
    int rc = open_disk(words, &disk, &error);
    if (rc == 0)
        rc = xv_point_disk_extents(disk, 0, disk->size, runs, RUNS, &count, NULL, &error);
    xv_disk_close(disk);
    if (rc != 0)
        return refuse(rc, error);
    printf("ok [");
    for (uint32_t i = 0; i < count; i++)
        printf("%s[%llu, %llu, %u]", i == 0 ? "" : ", ", (unsigned long long)runs[i].offset,
               (unsigned long long)runs[i].length, runs[i].kind);
    printf("]\n");
    return 0;
}

/* Keeps the first fault. */
static void note_fault(void *user, const struct xv_verify_fault *fault)
{
    char *text = user;
    if (text[0] == '\0')
        snprintf(text, FAULT, "%s: %s", fault->object, fault->message);
}

static int do_verify(char **words)
{
    xvsa_error *error = NULL;
    char fault[FAULT] = "", text[FAULT + 64];
    struct xv_verify_options options = {.fault = note_fault, .user = fault};
    struct xv_verify_result result = {0};
    (void)words;
    int rc = xv_repo_verify(repo, &options, NULL, &result, &error);
    if (rc != 0)
        return refuse(rc, error);
    snprintf(text, sizeof text, "%llu%s%s", (unsigned long long)result.faults,
             fault[0] == '\0' ? "" : ", first ", fault);
    return answer(text);
}

static const struct {
    const char *name;
    unsigned words;
    int (*run)(char **words);
} commands[] = {
    {"begin", 4, do_begin},       {"disk", 4, do_disk},       {"put", 4, do_put},
    {"keep", 3, do_keep},         {"finish", 1, do_finish},   {"checkpoint", 1, do_checkpoint},
    {"commit", 4, do_commit},     {"abort", 1, do_abort},     {"delete", 1, do_delete},
    {"list", 0, do_list},         {"restore", 3, do_restore}, {"extents", 2, do_extents},
    {"verify", 0, do_verify},     {"work", 6, do_work},       {"map", 8, do_map},
    {"adopt", 1, do_adopt},       {"park", 1, do_park},       {"done", 2, do_done},
    {"read-map", 2, do_read_map}, {"works", 0, do_works},
};

static void run_line(char *line)
{
    char *words[WORDS] = {0}, *rest = NULL;
    unsigned count = 0;
    for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < WORDS;
         word = strtok_r(NULL, " \n", &rest))
        words[count++] = word;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (count == commands[i].words + 1 && strcmp(words[0], commands[i].name) == 0) {
            commands[i].run(words + 1);
            fflush(stdout);
            return;
        }
    }
    errno = EINVAL;
    die(count == 0 ? "empty line" : words[0]);
}

static void read_passphrase(const char *path, struct xv_repo_options *options)
{
    static char text[1024];
    if (strcmp(path, "-") == 0) {
        options->flags = XVSA_REPO_NO_ENCRYPTION;
        return;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL || fgets(text, sizeof text, file) == NULL)
        die(path);
    fclose(file);
    options->passphrase = text;
    options->passphrase_size = strcspn(text, "\n");
}

static int open_repo(char **argv)
{
    xvsa_error *error = NULL;
    struct xv_target_registry *registry = NULL;
    struct xv_target *target = NULL;
    struct xv_repo_options options = {
        .kdf_log_n = 10, .compression_level = 1, .chunk_size = (uint32_t)number(argv[4])};
    char url[4096];
    snprintf(url, sizeof url, "file://%s", argv[1]);
    read_passphrase(argv[3], &options);
    bool is_new = strcmp(argv[2], "init") == 0;
    int rc = xv_target_registry_new(&registry, &error);
    if (rc == 0)
        rc = xv_target_open(registry, NULL, url, is_new ? XVSA_TARGET_CREATE : 0, NULL, &target,
                            &error);
    if (rc == 0)
        rc = is_new ? xv_repo_init(target, &options, NULL, &repo, &error)
                    : xv_repo_open(target, &options, NULL, &repo, &error);
    return rc != 0 ? refuse(rc, error) : answer(xv_repo_id(repo));
}

int main(int argc, char **argv)
{
    static char line[8192];
    if (argc != 5) {
        fprintf(stderr, "usage: format-repo DIR init|open PASSPHRASE-FILE|- CHUNK-SIZE\n");
        return 2;
    }
    if (open_repo(argv) != 0)
        return 1;
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL)
        run_line(line);
    return 0;
}
