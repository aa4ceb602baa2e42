/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/janitor.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "xenapi/operations.h"

#define TAG_TEXT_MAX 160

/* Tags of the dead and the intents they come from. */
struct list {
    char (*tags)[TAG_TEXT_MAX];
    int64_t *intents;
    size_t count;
    char name_suffix[24];             /* ":<hash of the job's name>"; "" for none */
    char own_owner[XV_OWNER_MAX + 2]; /* ":<owner>" */
};

static int add_intent(void *user, const struct xv_intent *intent, xvsa_error **error)
{
    struct list *list = user;
    char(*tags)[TAG_TEXT_MAX] = realloc(list->tags, (list->count + 1) * sizeof *tags);
    if (tags == NULL)
        return xv_fail_memory(error);
    list->tags = tags;
    int64_t *intents = realloc(list->intents, (list->count + 1) * sizeof *intents);
    if (intents == NULL)
        return xv_fail_memory(error);
    list->intents = intents;
    snprintf(list->tags[list->count], TAG_TEXT_MAX, "%s", intent->tag);
    list->intents[list->count++] = intent->id;
    return 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* A run of the same name whose state was in its memory, and that is not ours. */
static bool is_earlier_run(const struct list *list, const char *tag)
{
    return list->name_suffix[0] != '\0' && strncmp(tag, "xvsa:", 5) == 0 &&
           ends_with(tag, list->name_suffix) && strstr(tag, list->own_owner) == NULL;
}

static bool is_dead(void *user, const char *tag)
{
    const struct list *list = user;
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->tags[i], tag) == 0)
            return true;
    }
    return is_earlier_run(list, tag);
}

static int sweep(struct xv_pool *pool, const struct list *list, const struct xv_call *call,
                 xvsa_error **error)
{
    struct xv_client *client = xv_pool_client(pool);
    size_t removed = 0;
    size_t left = 0;
    int rc = xv_leftovers_remove(client, is_dead, (void *)(uintptr_t)list, NULL, 0, call, &removed,
                                 &left, error);
    if (removed > 0 || left > 0)
        xv_log(xv_engine_env(xv_pool_engine(pool)), XVSA_LOG_INFO, "janitor",
               "pool %s: removed %zu objects of dead jobs, %zu are left",
               xv_client_pool_uuid(client), removed, left);
    if (rc == 0 && left > 0)
        rc = xv_fail(error, XVSA_ERR_BUSY, "janitor",
                     "%zu objects of dead jobs could not be removed", left);
    return rc;
}

static int clear_intents(struct xv_pool *pool, const struct list *list, xvsa_error **error)
{
    struct xv_coord *coord = xv_engine_coord(xv_pool_engine(pool));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < list->count; i++)
        rc = xv_coord_intent_clear(coord, list->intents[i], error);
    return rc;
}

void xv_janitor_run(struct xv_pool *pool, const char *job_name, const struct xv_call *call)
{
    struct xv_coord *coord = xv_engine_coord(xv_pool_engine(pool));
    const char *pool_uuid = xv_client_pool_uuid(xv_pool_client(pool));
    struct list list = {0};
    if (job_name != NULL && job_name[0] != '\0')
        snprintf(list.name_suffix, sizeof list.name_suffix, ":%016llx",
                 (unsigned long long)XXH64(job_name, strlen(job_name), 0));
    snprintf(list.own_owner, sizeof list.own_owner, ":%s", xv_coord_owner(coord));
    xvsa_error *error = NULL;
    int rc = xv_coord_intents_dead(coord, pool_uuid, add_intent, &list, &error);
    bool in_memory = xv_coord_owner(coord)[0] == 'm' && list.name_suffix[0] != '\0';
    if (!in_memory)
        list.name_suffix[0] = '\0';
    if (rc == 0 && (list.count > 0 || in_memory))
        rc = sweep(pool, &list, call, &error);
    if (rc == 0)
        rc = clear_intents(pool, &list, &error);
    if (rc != 0)
        xv_log(xv_engine_env(xv_pool_engine(pool)), XVSA_LOG_WARNING, "janitor",
               "pool %s: leftovers of dead jobs stay until the next time: %s", pool_uuid,
               xvsa_error_message(error));
    xvsa_error_unref(error);
    free(list.tags);
    free(list.intents);
}
