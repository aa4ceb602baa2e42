/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reads the configuration by tables: each shape lists its members with their kind and their place in
 * the structure, so that what is accepted, refused, stored and freed cannot drift apart.
 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_TEXT_SIZE 256

enum kind {
    KIND_TEXT,
    KIND_FILE,
    KIND_NUMBER,
    KIND_FLAG,
    KIND_TEXTS,
    KIND_OBJECT,
    KIND_OBJECTS,
    KIND_DOCUMENT
};

struct shape;

struct member {
    const char *name; /* NULL ends a table */
    enum kind kind;
    bool required;
    size_t offset;
    size_t count_offset;       /* of KIND_OBJECTS */
    int64_t min, max;          /* of KIND_NUMBER */
    const struct shape *shape; /* of KIND_OBJECT and KIND_OBJECTS */
};

struct shape {
    size_t size;
    const struct member *members;
    bool named; /* its member "name" is unique in its list and comes first in the structure */
};

#define AT(type, field) offsetof(struct type, field)

static const struct member proxy_members[] = {
    {"name", KIND_TEXT, false, AT(config_proxy, name), 0, 0, 0, NULL},
    {"vm_uuid", KIND_TEXT, true, AT(config_proxy, vm_uuid), 0, 0, 0, NULL},
    {"max_disks", KIND_NUMBER, false, AT(config_proxy, max_disks), 0, 1, 64, NULL},
    {"here", KIND_FLAG, false, AT(config_proxy, here), 0, 0, 0, NULL},
    {"device_path", KIND_TEXT, false, AT(config_proxy, device_path), 0, 0, 0, NULL},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape proxy_shape = {sizeof(struct config_proxy), proxy_members, false};

static const struct member pool_members[] = {
    {"name", KIND_TEXT, true, AT(config_pool, name), 0, 0, 0, NULL},
    {"urls", KIND_TEXTS, true, AT(config_pool, urls), 0, 0, 0, NULL},
    {"username", KIND_TEXT, false, AT(config_pool, username), 0, 0, 0, NULL},
    {"password_file", KIND_FILE, false, AT(config_pool, password_file), 0, 0, 0, NULL},
    {"ca_file", KIND_FILE, false, AT(config_pool, ca_file), 0, 0, 0, NULL},
    {"fingerprints", KIND_TEXTS, false, AT(config_pool, fingerprints), 0, 0, 0, NULL},
    {"pool_uuid", KIND_TEXT, false, AT(config_pool, pool_uuid), 0, 0, 0, NULL},
    {"trust_on_first_use", KIND_FLAG, false, AT(config_pool, trust_on_first_use), 0, 0, 0, NULL},
    {"allow_plain_http", KIND_FLAG, false, AT(config_pool, allow_plain_http), 0, 0, 0, NULL},
    {"no_recovery", KIND_FLAG, false, AT(config_pool, no_recovery), 0, 0, 0, NULL},
    {"proxies", KIND_OBJECTS, false, AT(config_pool, proxies), AT(config_pool, proxy_count), 0, 0,
     &proxy_shape},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape pool_shape = {sizeof(struct config_pool), pool_members, true};

static const struct member repository_members[] = {
    {"name", KIND_TEXT, true, AT(config_repository, name), 0, 0, 0, NULL},
    {"url", KIND_TEXT, true, AT(config_repository, url), 0, 0, 0, NULL},
    {"passphrase_file", KIND_FILE, false, AT(config_repository, passphrase_file), 0, 0, 0, NULL},
    {"options", KIND_DOCUMENT, false, AT(config_repository, options), 0, 0, 0, NULL},
    {"chunk_size", KIND_NUMBER, false, AT(config_repository, chunk_size), 0, 65536, 4194304, NULL},
    {"compression_level", KIND_NUMBER, false, AT(config_repository, compression_level), 0, -7, 19,
     NULL},
    {"kdf_log_n", KIND_NUMBER, false, AT(config_repository, kdf_log_n), 0, 10, 22, NULL},
    {"no_encryption", KIND_FLAG, false, AT(config_repository, no_encryption), 0, 0, 0, NULL},
    {"read_only", KIND_FLAG, false, AT(config_repository, read_only), 0, 0, 0, NULL},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape repository_shape = {sizeof(struct config_repository), repository_members,
                                              true};

static const struct member job_members[] = {
    {"name", KIND_TEXT, true, AT(config_job, name), 0, 0, 0, NULL},
    {"pool", KIND_TEXT, false, AT(config_job, pool), 0, 0, 0, NULL},
    {"repository", KIND_TEXT, false, AT(config_job, repository), 0, 0, 0, NULL},
    {"job", KIND_DOCUMENT, true, AT(config_job, job), 0, 0, 0, NULL},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape job_shape = {sizeof(struct config_job), job_members, true};

static const struct member site_members[] = {
    {"store", KIND_TEXT, true, AT(config_site, store), 0, 0, 0, NULL},
    {"name", KIND_TEXT, true, AT(config_site, name), 0, 0, 0, NULL},
    {"member", KIND_TEXT, false, AT(config_site, member), 0, 0, 0, NULL},
    {"pool", KIND_TEXT, false, AT(config_site, pool), 0, 0, 0, NULL},
    {"vm_uuid", KIND_TEXT, false, AT(config_site, vm_uuid), 0, 0, 0, NULL},
    {"max_disks", KIND_NUMBER, false, AT(config_site, max_disks), 0, 1, 64, NULL},
    {"lease_ttl_ms", KIND_NUMBER, false, AT(config_site, lease_ttl_ms), 0, 2000, 3600000, NULL},
    {"checkpoint_ms", KIND_NUMBER, false, AT(config_site, checkpoint_ms), 0, 100, 3600000, NULL},
    {"unit_bytes", KIND_NUMBER, false, AT(config_site, unit_bytes), 0, 1048576, INT64_MAX, NULL},
    {"allow_plain_http", KIND_FLAG, false, AT(config_site, allow_plain_http), 0, 0, 0, NULL},
    {"username", KIND_TEXT, false, AT(config_site, username), 0, 0, 0, NULL},
    {"password_file", KIND_FILE, false, AT(config_site, password_file), 0, 0, 0, NULL},
    {"ca_file", KIND_FILE, false, AT(config_site, ca_file), 0, 0, 0, NULL},
    {"certificate_file", KIND_FILE, false, AT(config_site, certificate_file), 0, 0, 0, NULL},
    {"key_file", KIND_FILE, false, AT(config_site, key_file), 0, 0, 0, NULL},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape site_shape = {sizeof(struct config_site), site_members, false};

static const struct member serve_members[] = {
    {"listen", KIND_TEXT, false, AT(config_serve, listen), 0, 0, 0, NULL},
    {"drain_ms", KIND_NUMBER, false, AT(config_serve, drain_ms), 0, 1, 86400000, NULL},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape serve_shape = {sizeof(struct config_serve), serve_members, false};

static const struct member config_members[] = {
    {"state", KIND_FILE, false, AT(config, state), 0, 0, 0, NULL},
    {"log_level", KIND_TEXT, false, AT(config, log_level), 0, 0, 0, NULL},
    {"worker_threads", KIND_NUMBER, false, AT(config, worker_threads), 0, 1, 1024, NULL},
    {"memory_limit", KIND_NUMBER, false, AT(config, memory_limit), 0, 16777216, INT64_MAX, NULL},
    {"pools", KIND_OBJECTS, false, AT(config, pools), AT(config, pool_count), 0, 0, &pool_shape},
    {"repositories", KIND_OBJECTS, false, AT(config, repositories), AT(config, repository_count), 0,
     0, &repository_shape},
    {"jobs", KIND_OBJECTS, false, AT(config, jobs), AT(config, job_count), 0, 0, &job_shape},
    {"site", KIND_OBJECT, false, AT(config, site), 0, 0, 0, &site_shape},
    {"serve", KIND_OBJECT, false, AT(config, serve), 0, 0, 0, &serve_shape},
    {NULL, KIND_TEXT, false, 0, 0, 0, 0, NULL},
};
static const struct shape config_shape = {sizeof(struct config), config_members, false};

/* What reading a document carries along. */
struct reader {
    char path[PATH_TEXT_SIZE]; /* of the value being read */
    char *problem;
};

__attribute__((format(printf, 1, 2))) static char *format_text(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    char *text = NULL;
    if (vasprintf(&text, format, list) < 0)
        text = NULL;
    va_end(list);
    return text;
}

/* Stores why the value at the reader's path is refused; always returns false. */
static bool refuse(struct reader *reader, const char *why)
{
    const char *path = reader->path[0] != '\0' ? reader->path : "the document";
    free(reader->problem);
    reader->problem = format_text("%s: %s", path, why);
    return false;
}

/* Extends the path; returns its former length, to which path_cut takes it back. */
static size_t path_add(struct reader *reader, const char *name)
{
    size_t length = strlen(reader->path);
    snprintf(reader->path + length, sizeof reader->path - length, "%s%s",
             length > 0 && name[0] != '[' ? "." : "", name);
    return length;
}

static void path_cut(struct reader *reader, size_t length)
{
    reader->path[length] = '\0';
}

static void *field(void *object, size_t offset)
{
    return (char *)object + offset;
}

static bool read_text(struct reader *reader, const json_t *value, char **ret)
{
    if (!json_is_string(value))
        return refuse(reader, "must be a text");
    if (json_string_length(value) == 0)
        return refuse(reader, "must not be empty");
    if (strlen(json_string_value(value)) != json_string_length(value))
        return refuse(reader, "must not hold a NUL character");
    *ret = strdup(json_string_value(value));
    return *ret != NULL || refuse(reader, "out of memory");
}

static bool read_texts(struct reader *reader, const json_t *value, struct config_texts *ret)
{
    if (!json_is_array(value) || json_array_size(value) == 0)
        return refuse(reader, "must be a list of at least one text");
    ret->items = calloc(json_array_size(value), sizeof *ret->items);
    if (ret->items == NULL)
        return refuse(reader, "out of memory");
    for (size_t i = 0; i < json_array_size(value); i++) {
        char position[32];
        snprintf(position, sizeof position, "[%zu]", i);
        size_t length = path_add(reader, position);
        if (!read_text(reader, json_array_get(value, i), &ret->items[i]))
            return false;
        ret->count++;
        path_cut(reader, length);
    }
    return true;
}

static bool read_number(struct reader *reader, const struct member *member, const json_t *value,
                        int64_t *ret)
{
    if (!json_is_integer(value))
        return refuse(reader, "must be an integer");
    *ret = json_integer_value(value);
    if (*ret >= member->min && *ret <= member->max)
        return true;
    char *range =
        format_text("must be from %lld to %lld", (long long)member->min, (long long)member->max);
    refuse(reader, range != NULL ? range : "out of memory");
    free(range);
    return false;
}

static bool read_shape(struct reader *reader, const struct shape *shape, const json_t *value,
                       void *object);

static bool is_name_taken(const struct shape *shape, const char *objects, size_t count)
{
    const char *last = *(char *const *)(const void *)(objects + count * shape->size);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(*(char *const *)(const void *)(objects + i * shape->size), last) == 0)
            return true;
    }
    return false;
}

static bool read_objects(struct reader *reader, const struct member *member, const json_t *value,
                         void *object)
{
    if (!json_is_array(value))
        return refuse(reader, "must be a list of objects");
    char **items = field(object, member->offset);
    size_t *count = field(object, member->count_offset);
    *items = calloc(json_array_size(value) + 1, member->shape->size);
    if (*items == NULL)
        return refuse(reader, "out of memory");
    for (size_t i = 0; i < json_array_size(value); i++) {
        char position[32];
        snprintf(position, sizeof position, "[%zu]", i);
        size_t length = path_add(reader, position);
        *count = i + 1; /* so that what a refused object holds is freed */
        if (!read_shape(reader, member->shape, json_array_get(value, i),
                        *items + i * member->shape->size))
            return false;
        if (member->shape->named && is_name_taken(member->shape, *items, i))
            return refuse(reader, "another one has the same name");
        path_cut(reader, length);
    }
    return true;
}

static bool read_object(struct reader *reader, const struct member *member, const json_t *value,
                        void *object)
{
    void **place = field(object, member->offset);
    *place = calloc(1, member->shape->size);
    if (*place == NULL)
        return refuse(reader, "out of memory");
    return read_shape(reader, member->shape, value, *place);
}

static bool read_member(struct reader *reader, const struct member *member, json_t *value,
                        void *object)
{
    switch (member->kind) {
    case KIND_TEXT:
    case KIND_FILE:
        return read_text(reader, value, field(object, member->offset));
    case KIND_TEXTS:
        return read_texts(reader, value, field(object, member->offset));
    case KIND_NUMBER:
        return read_number(reader, member, value, field(object, member->offset));
    case KIND_FLAG:
        *(bool *)field(object, member->offset) = json_is_true(value);
        return json_is_boolean(value) || refuse(reader, "must be true or false");
    case KIND_DOCUMENT:
        if (!json_is_object(value))
            return refuse(reader, "must be an object");
        *(json_t **)field(object, member->offset) = json_incref(value);
        return true;
    case KIND_OBJECT:
        return read_object(reader, member, value, object);
    case KIND_OBJECTS:
        return read_objects(reader, member, value, object);
    }
    return false;
}

static const struct member *find_member(const struct shape *shape, const char *name)
{
    for (const struct member *member = shape->members; member->name != NULL; member++) {
        if (strcmp(member->name, name) == 0)
            return member;
    }
    return NULL;
}

static bool read_shape(struct reader *reader, const struct shape *shape, const json_t *value,
                       void *object)
{
    if (!json_is_object(value))
        return refuse(reader, "must be an object");
    for (const struct member *member = shape->members; member->name != NULL; member++) {
        size_t length = path_add(reader, member->name);
        if (member->required && json_object_get(value, member->name) == NULL)
            return refuse(reader, "is missing");
        path_cut(reader, length);
    }
    const char *name;
    json_t *item;
    json_object_foreach((json_t *)value, name, item)
    {
        const struct member *member = find_member(shape, name);
        size_t length = path_add(reader, name);
        if (member == NULL)
            return refuse(reader, "is not a member known here");
        if (!read_member(reader, member, item, object))
            return false;
        path_cut(reader, length);
    }
    return true;
}

static void free_shape(const struct shape *shape, void *object)
{
    for (const struct member *member = shape->members; member->name != NULL; member++) {
        void *place = field(object, member->offset);
        if (member->kind == KIND_TEXT || member->kind == KIND_FILE) {
            free(*(char **)place);
        } else if (member->kind == KIND_TEXTS) {
            struct config_texts *texts = place;
            for (size_t i = 0; i < texts->count; i++)
                free(texts->items[i]);
            free(texts->items);
        } else if (member->kind == KIND_DOCUMENT) {
            json_decref(*(json_t **)place);
        } else if (member->kind == KIND_OBJECT && *(void **)place != NULL) {
            free_shape(member->shape, *(void **)place);
            free(*(void **)place);
        } else if (member->kind == KIND_OBJECTS) {
            size_t *count = field(object, member->count_offset);
            for (size_t i = 0; i < *count; i++)
                free_shape(member->shape, *(char **)place + i * member->shape->size);
            free(*(void **)place);
        }
    }
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    free_shape(&config_shape, config);
    free(config);
}

/* References between objects, and values whose meaning a kind cannot tell. */
static bool check_meaning(struct reader *reader, const struct config *config)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    bool known = config->log_level == NULL;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0] && !known; i++)
        known = strcmp(config->log_level, levels[i]) == 0;
    path_cut(reader, 0);
    if (!known) {
        path_add(reader, "log_level");
        return refuse(reader, "must be error, warning, info or debug");
    }
    for (size_t i = 0; i < config->job_count; i++) {
        const struct config_job *job = &config->jobs[i];
        snprintf(reader->path, sizeof reader->path, "jobs[%zu]", i);
        if (job->pool != NULL && config_find_pool(config, job->pool) == NULL) {
            path_add(reader, "pool");
            return refuse(reader, "no pool has this name");
        }
        if (job->repository != NULL && config_find_repository(config, job->repository) == NULL) {
            path_add(reader, "repository");
            return refuse(reader, "no repository has this name");
        }
    }
    if (config->site != NULL && config->site->pool != NULL &&
        config_find_pool(config, config->site->pool) == NULL) {
        snprintf(reader->path, sizeof reader->path, "site.pool");
        return refuse(reader, "no pool has this name");
    }
    return true;
}

bool config_parse(const char *text, size_t size, struct config **ret, char **ret_problem)
{
    struct reader reader = {"", NULL};
    json_error_t where;
    json_t *document = NULL;
    struct config *config = NULL;
    bool good = false;

    if (size > CONFIG_SIZE_MAX) {
        refuse(&reader, "is longer than 1 MiB");
        goto out;
    }
    document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (document == NULL) {
        /* jansson's text may quote the input; its position is enough to find the place. */
        reader.problem = format_text("line %d, column %d: not valid JSON (or a member given twice)",
                                     where.line, where.column);
        goto out;
    }
    config = calloc(1, sizeof *config);
    if (config == NULL) {
        refuse(&reader, "out of memory");
        goto out;
    }
    good = read_shape(&reader, &config_shape, document, config) && check_meaning(&reader, config);
out:
    json_decref(document);
    if (good) {
        *ret = config;
    } else {
        config_free(config);
        *ret_problem = reader.problem;
    }
    return good;
}

const struct config_pool *config_find_pool(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->pool_count; i++) {
        if (strcmp(config->pools[i].name, name) == 0)
            return &config->pools[i];
    }
    return NULL;
}

const struct config_repository *config_find_repository(const struct config *config,
                                                       const char *name)
{
    for (size_t i = 0; i < config->repository_count; i++) {
        if (strcmp(config->repositories[i].name, name) == 0)
            return &config->repositories[i];
    }
    return NULL;
}

const struct config_job *config_find_job(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->job_count; i++) {
        if (strcmp(config->jobs[i].name, name) == 0)
            return &config->jobs[i];
    }
    return NULL;
}

/* Puts folder before every relative file name. */
static bool anchor_files(const struct shape *shape, void *object, const char *folder)
{
    for (const struct member *member = shape->members; member->name != NULL; member++) {
        char **text = field(object, member->offset);
        if (member->kind == KIND_FILE && *text != NULL && (*text)[0] != '/') {
            char *joined = format_text("%s/%s", folder, *text);
            if (joined == NULL)
                return false;
            free(*text);
            *text = joined;
        }
        if (member->kind == KIND_OBJECT && *text != NULL &&
            !anchor_files(member->shape, *text, folder))
            return false;
        if (member->kind == KIND_OBJECTS) {
            size_t *count = field(object, member->count_offset);
            for (size_t i = 0; i < *count; i++) {
                if (!anchor_files(member->shape, *text + i * member->shape->size, folder))
                    return false;
            }
        }
    }
    return true;
}

static char *read_file(const char *path, size_t *ret_size, char **ret_problem)
{
    FILE *file = fopen(path, "rbe");
    char *text = file != NULL ? malloc(CONFIG_SIZE_MAX + 1) : NULL;
    size_t size = text != NULL ? fread(text, 1, CONFIG_SIZE_MAX + 1, file) : 0;
    if (text == NULL || ferror(file)) {
        *ret_problem = format_text("%s: cannot be read: %s", path, strerror(errno));
        free(text);
        text = NULL;
    }
    if (file != NULL)
        fclose(file);
    *ret_size = size;
    return text;
}

bool config_load(const char *path, struct config **ret, char **ret_problem)
{
    size_t size = 0;
    char *text = read_file(path, &size, ret_problem);
    if (text == NULL)
        return false;
    struct config *config = NULL;
    char *problem = NULL;
    bool good = config_parse(text, size, &config, &problem);
    free(text);
    if (!good) {
        *ret_problem = format_text("%s: %s", path, problem != NULL ? problem : "out of memory");
        free(problem);
        return false;
    }
    const char *slash = strrchr(path, '/');
    char *folder = slash != NULL ? strndup(path, (size_t)(slash - path)) : strdup(".");
    if (folder == NULL || !anchor_files(&config_shape, config, folder)) {
        *ret_problem = strdup("out of memory");
        config_free(config);
        config = NULL;
    }
    free(folder);
    *ret = config;
    return config != NULL;
}
