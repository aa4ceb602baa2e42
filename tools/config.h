/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The configuration file: one JSON document, described in docs/config.md and docs/config.schema.json.
 * Reading is strict: a member that is not known, missing or of the wrong kind is refused with its
 * path ("pools[0].urls").
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A longer file is refused unread. */
#define CONFIG_SIZE_MAX (1024u * 1024u)

struct config_texts {
    char **items;
    size_t count;
};

struct config_proxy {
    char *name, *vm_uuid;
    char *device_path;
    int64_t max_disks;
    bool here;
};

struct config_pool {
    char *name, *username, *password_file, *ca_file, *pool_uuid;
    struct config_texts urls, fingerprints;
    struct config_proxy *proxies;
    size_t proxy_count;
    bool trust_on_first_use, allow_plain_http, no_recovery;
};

struct config_repository {
    char *name, *url, *passphrase_file;
    json_t *options; /* of the storage target; NULL: none */
    int64_t chunk_size, compression_level, kdf_log_n;
    bool no_encryption, read_only;
};

struct config_job {
    char *name, *pool, *repository;
    json_t *job; /* the document "job" */
};

/* The site that `serve` joins and `job` talks to. */
struct config_site {
    char *store, *name, *member, *pool, *vm_uuid;
    char *username, *password_file, *ca_file, *certificate_file, *key_file;
    int64_t max_disks, lease_ttl_ms, checkpoint_ms, unit_bytes;
    bool allow_plain_http;
};

struct config_serve {
    char *listen;
    int64_t drain_ms;
};

struct config {
    char *state, *log_level;
    int64_t worker_threads, memory_limit;
    struct config_pool *pools;
    size_t pool_count;
    struct config_repository *repositories;
    size_t repository_count;
    struct config_job *jobs;
    size_t job_count;
    struct config_site *site;   /* NULL: none */
    struct config_serve *serve; /* NULL: defaults */
};

/* Reads a document. On failure returns false and stores a problem that the caller frees; it names the
 * member by its path and never holds a value. */
bool config_parse(const char *text, size_t size, struct config **ret, char **ret_problem);
/* Reads a file; file names in it that are relative become relative to its folder. */
bool config_load(const char *path, struct config **ret, char **ret_problem);
void config_free(struct config *config);

/* By name; NULL when there is none. */
const struct config_pool *config_find_pool(const struct config *config, const char *name);
const struct config_repository *config_find_repository(const struct config *config,
                                                       const char *name);
const struct config_job *config_find_job(const struct config *config, const char *name);

#endif
