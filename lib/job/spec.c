/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/spec.h"

#include <stdlib.h>
#include <string.h>

#define PATH            "job"
#define NAME_MAX_LEN    200
#define PARALLEL_MAX    64
#define CHAIN_MAX       30 /* what drivers allow */
#define SNAPSHOT_MS     (10 * 60 * 1000)
#define SNAPSHOT_MS_MAX (24 * 60 * 60 * 1000)
#define LIMIT_MS_MAX    (366ll * 24 * 60 * 60 * 1000)
#define ATTEMPTS_MAX    10
#define RETRY_MS        30000
#define RETRY_MS_MAX    (24 * 60 * 60 * 1000)
#define PRIORITY_MAX    100
#define MEMBERS_MAX     32

static const char *const type_names[] = {"backup", "restore", "verify", NULL};

const char *xv_job_type_name(enum xv_job_type type)
{
    return type_names[type];
}

void xv_spec_free(struct xv_spec *spec)
{
    if (spec == NULL)
        return;
    xv_selection_free(spec->selection);
    json_decref(spec->json);
    free(spec);
}

/* Members of every type, and those of this one. */
static int check_members(const struct xv_spec *spec, const char *const *own, xvsa_error **error)
{
    static const char *const common[] = {"type", "name", "refuse", "time_limit_ms", "priority"};
    const char *all[MEMBERS_MAX] = {NULL};
    size_t count = 0;
    for (; count < sizeof common / sizeof common[0]; count++)
        all[count] = common[count];
    for (; *own != NULL && count + 1 < MEMBERS_MAX; own++)
        all[count++] = *own;
    return xv_json_check_members(spec->json, PATH, all, error);
}

static int read_retry(struct xv_spec *spec, xvsa_error **error)
{
    static const char *const members[] = {"attempts", "delay_ms", NULL};
    static const char path[] = PATH ".retry";
    const json_t *retry = NULL;
    int rc = xv_json_read_object(spec->json, PATH, "retry", &retry, error);
    if (rc == 0 && retry != NULL)
        rc = xv_json_check_members(retry, path, members, error);
    if (rc == 0 && retry != NULL)
        rc = xv_json_read_int(retry, path, "attempts", 1, ATTEMPTS_MAX, &spec->retry_attempts,
                              error);
    if (rc == 0 && retry != NULL)
        rc = xv_json_read_int(retry, path, "delay_ms", 0, RETRY_MS_MAX, &spec->retry_delay_ms,
                              error);
    if (rc == 0)
        rc = xv_json_read_text(spec->json, PATH, "only_failed_of", &spec->only_failed_of, error);
    return rc;
}

static int read_transports(struct xv_spec *spec, bool has_nbd, xvsa_error **error)
{
    const json_t *array = NULL;
    int rc = xv_json_read_array(spec->json, PATH, "transports", &array, error);
    if (rc != 0 || array == NULL)
        return rc;
    spec->use_hotadd = false;
    spec->use_nbd = false;
    spec->use_http = false;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        if (name != NULL && strcmp(name, "hotadd") == 0)
            spec->use_hotadd = true;
        else if (name != NULL && strcmp(name, "nbd") == 0 && has_nbd)
            spec->use_nbd = true;
        else if (name != NULL && strcmp(name, "http") == 0)
            spec->use_http = true;
        else
            return xv_fail(error, XVSA_ERR_INVALID, "job", PATH ".transports[%zu]: must be %s", i,
                           has_nbd ? "\"hotadd\", \"nbd\" or \"http\"" : "\"hotadd\" or \"http\"");
    }
    spec->wants_hotadd = spec->use_hotadd;
    if (!spec->use_hotadd && !spec->use_nbd && !spec->use_http)
        return xv_fail(error, XVSA_ERR_INVALID, "job", PATH ".transports: must name at least one");
    return 0;
}

/* What snapshots must leave: of their SR's space, and of its chains' length. */
static int read_limits(struct xv_spec *spec, xvsa_error **error)
{
    static const char *const members[] = {"bytes", "percent", NULL};
    static const char path[] = PATH ".sr_reserve";
    const json_t *reserve = NULL;
    int rc = xv_json_read_object(spec->json, PATH, "sr_reserve", &reserve, error);
    if (rc == 0 && reserve != NULL)
        rc = xv_json_check_members(reserve, path, members, error);
    if (rc == 0 && reserve != NULL)
        rc = xv_json_read_int(reserve, path, "bytes", 0, INT64_MAX, &spec->sr_reserve_bytes, error);
    if (rc == 0 && reserve != NULL)
        rc = xv_json_read_int(reserve, path, "percent", 0, 100, &spec->sr_reserve_percent, error);
    if (rc == 0)
        rc = xv_json_read_int(spec->json, PATH, "chain_depth", 2, CHAIN_MAX, &spec->chain_depth,
                              error);
    return rc;
}

/* With an earlier job to repeat, everything that failed there is selected unless something narrower is. */
static int read_selection(struct xv_spec *spec, xvsa_error **error)
{
    json_t *given = json_object_get(spec->json, "selection");
    if (given == NULL && spec->only_failed_of == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "job", PATH ".selection: is missing");
    json_t *json = given != NULL ? json_incref(given) : json_pack("{s:[{s:b}]}", "vms", "all", 1);
    if (json == NULL)
        return xv_fail_memory(error);
    int rc = xv_selection_read(json, PATH ".selection", &spec->selection, error);
    if (given == NULL)
        json_object_set(spec->json, "selection", json);
    json_decref(json);
    return rc;
}

static int read_backup(struct xv_spec *spec, xvsa_error **error)
{
    static const char *const members[] = {"retry",
                                          "only_failed_of",
                                          "selection",
                                          "cbt",
                                          "transports",
                                          "insecure_nbd",
                                          "block_migration",
                                          "parallel_vms",
                                          "snapshot_timeout_ms",
                                          "sr_reserve",
                                          "chain_depth",
                                          NULL};
    static const char *const cbt_names[] = {"auto", "use", "off", NULL};
    int cbt = XV_CBT_AUTO;
    int rc = check_members(spec, members, error);
    if (rc == 0)
        rc = read_retry(spec, error);
    if (rc == 0)
        rc = read_selection(spec, error);
    if (rc == 0)
        rc = xv_json_read_choice(spec->json, PATH, "cbt", cbt_names, &cbt, error);
    if (rc == 0)
        rc = read_transports(spec, true, error);
    if (rc == 0)
        rc = xv_json_read_bool(spec->json, PATH, "insecure_nbd", &spec->insecure_nbd, error);
    if (rc == 0)
        rc = xv_json_read_bool(spec->json, PATH, "block_migration", &spec->block_migration, error);
    if (rc == 0)
        rc = xv_json_read_int(spec->json, PATH, "parallel_vms", 1, PARALLEL_MAX,
                              &spec->parallel_vms, error);
    if (rc == 0)
        rc = xv_json_read_int(spec->json, PATH, "snapshot_timeout_ms", 1000, SNAPSHOT_MS_MAX,
                              &spec->snapshot_timeout_ms, error);
    if (rc == 0)
        rc = read_limits(spec, error);
    spec->cbt = (enum xv_cbt_policy)cbt;
    return rc;
}

/* A map of texts to texts, or to null where nullable. */
static int read_map(struct xv_spec *spec, const char *name, bool nullable, const json_t **ret,
                    xvsa_error **error)
{
    int rc = xv_json_read_object(spec->json, PATH, name, ret, error);
    if (rc != 0 || *ret == NULL)
        return rc;
    json_t *object = json_object_get(spec->json, name);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        bool fits = json_string_length(value) > 0 || (nullable && json_is_null(value));
        if (!fits)
            return xv_fail(error, XVSA_ERR_INVALID, "job", PATH ".%s.%s: must be a uuid or name%s",
                           name, key, nullable ? " or null" : "");
    }
    return 0;
}

static int read_points(struct xv_spec *spec, xvsa_error **error)
{
    int rc = xv_json_read_array(spec->json, PATH, "points", &spec->points, error);
    if (rc != 0)
        return rc;
    if (spec->points == NULL && spec->only_failed_of != NULL)
        return 0;
    if (json_array_size(spec->points) == 0)
        return xv_fail(error, XVSA_ERR_INVALID, "job",
                       PATH ".points: must name at least one restore point");
    for (size_t i = 0; i < json_array_size(spec->points); i++) {
        if (json_string_length(json_array_get(spec->points, i)) == 0)
            return xv_fail(error, XVSA_ERR_INVALID, "job",
                           PATH ".points[%zu]: must be the id of a restore point", i);
    }
    return 0;
}

static int read_restore(struct xv_spec *spec, xvsa_error **error)
{
    static const char *const members[] = {"retry", "only_failed_of", "points",     "srs",
                                          "disks", "networks",       "default_sr", "vm_name",
                                          "mac",   "transports",     NULL};
    static const char *const mac_names[] = {"auto", "keep", "renew", NULL};
    int mac = XV_MAC_AUTO;
    spec->vm_name = "{name}";
    int rc = check_members(spec, members, error);
    if (rc == 0)
        rc = read_retry(spec, error);
    if (rc == 0)
        rc = read_points(spec, error);
    if (rc == 0)
        rc = read_map(spec, "srs", false, &spec->srs, error);
    if (rc == 0)
        rc = read_map(spec, "disks", false, &spec->disks, error);
    if (rc == 0)
        rc = read_map(spec, "networks", true, &spec->networks, error);
    if (rc == 0)
        rc = xv_json_read_text(spec->json, PATH, "default_sr", &spec->default_sr, error);
    if (rc == 0)
        rc = xv_json_read_text(spec->json, PATH, "vm_name", &spec->vm_name, error);
    if (rc == 0)
        rc = xv_json_read_choice(spec->json, PATH, "mac", mac_names, &mac, error);
    if (rc == 0)
        rc = read_transports(spec, false, error);
    spec->mac = (enum xv_mac_policy)mac;
    return rc;
}

static int read_verify(struct xv_spec *spec, xvsa_error **error)
{
    static const char *const members[] = {"point", "quick", NULL};
    int rc = check_members(spec, members, error);
    if (rc == 0)
        rc = xv_json_read_text(spec->json, PATH, "point", &spec->point, error);
    if (rc == 0)
        rc = xv_json_read_bool(spec->json, PATH, "quick", &spec->quick, error);
    return rc;
}

static int read_common(struct xv_spec *spec, xvsa_error **error)
{
    const json_t *refuse = NULL;
    int type = -1;
    int rc = xv_json_read_choice(spec->json, PATH, "type", type_names, &type, error);
    if (rc == 0 && type < 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "job",
                     PATH ".type: must be \"backup\", \"restore\" or \"verify\"");
    if (rc == 0)
        rc = xv_json_read_text(spec->json, PATH, "name", &spec->name, error);
    if (rc == 0 && strlen(spec->name) > NAME_MAX_LEN)
        rc = xv_fail(error, XVSA_ERR_INVALID, "job", PATH ".name: longer than %d bytes",
                     NAME_MAX_LEN);
    if (rc == 0)
        rc = xv_json_read_array(spec->json, PATH, "refuse", &refuse, error);
    if (rc == 0)
        rc = xv_refusals_read(refuse, PATH ".refuse", &spec->refusals, error);
    if (rc == 0)
        rc = xv_json_read_int(spec->json, PATH, "time_limit_ms", 1000, LIMIT_MS_MAX,
                              &spec->time_limit_ms, error);
    if (rc == 0)
        rc = xv_json_read_int(spec->json, PATH, "priority", -PRIORITY_MAX, PRIORITY_MAX,
                              &spec->priority, error);
    if (rc == 0)
        spec->type = (enum xv_job_type)type;
    return rc;
}

int xv_spec_read(const char *text, struct xv_spec **ret, xvsa_error **error)
{
    static int (*const readers[])(struct xv_spec *, xvsa_error **) = {read_backup, read_restore,
                                                                      read_verify};
    struct xv_spec *spec = calloc(1, sizeof *spec);
    if (spec == NULL)
        return xv_fail_memory(error);
    spec->name = "";
    spec->use_hotadd = true;
    spec->use_nbd = true;
    spec->use_http = true;
    spec->block_migration = true;
    spec->snapshot_timeout_ms = SNAPSHOT_MS;
    spec->retry_attempts = 1;
    spec->retry_delay_ms = RETRY_MS;
    int rc = xv_json_parse(text, PATH, &spec->json, error);
    if (rc == 0)
        rc = read_common(spec, error);
    if (rc == 0)
        rc = readers[spec->type](spec, error);
    if (rc != 0) {
        xv_spec_free(spec);
        return rc;
    }
    *ret = spec;
    return 0;
}
