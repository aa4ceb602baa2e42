/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

static const char *const control_names[] = {"run", "suspend", "cancel", "cancel-now", NULL};
static const char *const part_names[] = {"", "planning", "working", "cleaning", "ended", NULL};
static const char *const task_names[] = {"pending", "assigned", "running",   "parked", "succeeded",
                                         "failed",  "refused",  "cancelled", NULL};

const char *xv_control_name(enum xv_control control)
{
    return control_names[control];
}

const char *xv_task_state_name(enum xv_task_state state)
{
    return task_names[state];
}

bool xv_task_has_ended(enum xv_task_state state)
{
    return state >= XV_TASK_SUCCEEDED;
}

const char *xv_key_end(const char *key)
{
    const char *slash = strrchr(key, '/');
    return slash == NULL ? key : slash + 1;
}

const char *xv_member_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

int64_t xv_member_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

void xv_set_text(json_t *object, const char *name, const char *text)
{
    json_object_set_new(object, name, text == NULL ? json_null() : json_string(text));
}

void xv_set_number(json_t *object, const char *name, int64_t number)
{
    json_object_set_new(object, name, json_integer(number));
}

int xv_make_id(char ret[XV_SITE_ID_LENGTH + 1], xvsa_error **error)
{
    unsigned char id[XV_SITE_ID_LENGTH / 2];
    int rc = xv_random(id, sizeof id, error);
    if (rc == 0)
        xv_hex_encode(id, sizeof id, ret);
    return rc;
}

bool xv_is_word(const char *text)
{
    size_t length =
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");
    return length > 0 && length <= XV_SUBJECT_MAX && text[length] == '\0';
}

static int find_name(const char *const *names, const char *text)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0)
            return i;
    }
    return -1;
}

static int fail_format(const struct xv_kv_pair *pair, json_t *json, xvsa_error **error)
{
    json_decref(json);
    return xv_fail(error, XVSA_ERR_FORMAT, "agent",
                   "the coordination store's entry \"%s\" is not understood: a newer version may"
                   " have written it",
                   pair->key);
}

int xv_queued_job_read(const struct xv_kv_pair *pair, struct xv_queued_job *ret, xvsa_error **error)
{
    json_t *json = xv_pair_json(pair);
    int control = find_name(control_names, xv_member_text(json, "control"));
    const json_t *spec = json_object_get(json, "spec");
    const json_t *pools = json_object_get(json, "pools");
    const char *id = xv_member_text(json, "id");
    if (control < 0 || !json_is_object(spec) || !json_is_array(pools) ||
        strcmp(id, xv_key_end(pair->key)) != 0)
        return fail_format(pair, json, error);
    *ret = (struct xv_queued_job){
        .json = json,
        .mod = pair->mod_revision,
        .id = id,
        .type = xv_member_text(spec, "type"),
        .name = xv_member_text(spec, "name"),
        .repository = xv_member_text(json, "repository"),
        .spec = spec,
        .pools = pools,
        .control = (enum xv_control)control,
        .priority = xv_member_number(json, "priority"),
        .submitted_ms = xv_member_number(json, "submitted_ms"),
        .started_ms = xv_member_number(json, "started_ms"),
        .time_limit_ms = xv_member_number(json, "time_limit_ms"),
    };
    return 0;
}

int xv_part_read(const struct xv_kv_pair *pair, struct xv_part *ret, xvsa_error **error)
{
    json_t *json = xv_pair_json(pair);
    int state = find_name(part_names, xv_member_text(json, "state"));
    const char *pool = xv_member_text(json_object_get(json, "pool"), "uuid");
    if (state <= 0 || strcmp(pool, xv_key_end(pair->key)) != 0)
        return fail_format(pair, json, error);
    *ret = (struct xv_part){
        .json = json,
        .mod = pair->mod_revision,
        .pool = pool,
        .state = (enum xv_part_state)state,
        .hold = xv_member_text(json, "hold"),
    };
    return 0;
}

int xv_task_read(const struct xv_kv_pair *pair, struct xv_task_record *ret, xvsa_error **error)
{
    json_t *json = xv_pair_json(pair);
    int state = find_name(task_names, xv_member_text(json, "state"));
    const json_t *disks = json_object_get(json, "disks");
    int64_t attempt = xv_member_number(json, "attempt");
    if (state < 0 || !json_is_array(disks) || attempt < 0 || attempt > UINT32_MAX)
        return fail_format(pair, json, error);
    char *key = strdup(pair->key);
    if (key == NULL) {
        json_decref(json);
        return xv_fail_memory(error);
    }
    *ret = (struct xv_task_record){
        .json = json,
        .mod = pair->mod_revision,
        .key = key,
        .subject = xv_key_end(key),
        .name = xv_member_text(json, "name"),
        .owner = xv_member_text(json, "owner"),
        .work = xv_member_text(json, "work"),
        .disks = disks,
        .state = (enum xv_task_state)state,
        .attempt = (uint32_t)attempt,
        .order = (uint64_t)xv_member_number(json, "order"),
    };
    return 0;
}

void xv_task_record_free(struct xv_task_record *task)
{
    json_decref(task->json);
    free(task->key);
}

int xv_member_read(const struct xv_kv_pair *pair, struct xv_site_member *ret, xvsa_error **error)
{
    json_t *json = xv_pair_json(pair);
    int64_t disks = xv_member_number(json, "max_disks");
    const char *pool = xv_member_text(json, "pool");
    if (json == NULL || pool[0] == '\0' || disks < 1 || disks > UINT16_MAX)
        return fail_format(pair, json, error);
    *ret = (struct xv_site_member){
        .json = json,
        .create = pair->create_revision,
        .name = xv_member_text(json, "name"),
        .pool = pool,
        .pool_name = xv_member_text(json, "pool_name"),
        .vm_uuid = xv_member_text(json, "vm_uuid"),
        .repositories = json_object_get(json, "repositories"),
        .max_disks = (uint32_t)disks,
        .draining = json_is_true(json_object_get(json, "draining")),
        .reaches_pool = !json_is_false(json_object_get(json, "reaches_pool")),
    };
    return 0;
}
