/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/find.h"

#include <string.h>
#include <strings.h>

#define ID_BEGINNING_LEAST 4

static bool is_uuid(const char *text)
{
    return strlen(text) == 36 && strspn(text, "0123456789abcdefABCDEF-") == 36;
}

int xv_find_pool(const struct xv_view *members, const char *given, const char **ret,
                 xvsa_error **error)
{
    const char *found = NULL;
    for (size_t i = 0; i < members->member_count; i++) {
        const struct xv_site_member *member = &members->members[i];
        bool named = given == NULL || strcasecmp(member->pool, given) == 0 ||
                     strcmp(member->pool_name, given) == 0;
        if (!named || (found != NULL && strcmp(found, member->pool) == 0))
            continue;
        if (found != NULL)
            return xv_fail(error, XVSA_ERR_CONFLICT, "agent",
                           "job.pool: %s%s%s several pools: %s, %s and maybe more; give a uuid",
                           given == NULL ? "the site serves" : "\"", given == NULL ? "" : given,
                           given == NULL ? "" : "\" names", found, member->pool);
        found = member->pool;
    }
    if (found == NULL && given != NULL && is_uuid(given))
        found = given; /* its members may come later */
    if (found == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "agent",
                       "job.pool: no living member serves a pool%s%s%s", given == NULL ? "" : " \"",
                       given == NULL ? "" : given, given == NULL ? "" : "\"");
    *ret = found;
    return 0;
}

static bool serves(const struct xv_site_member *member, const json_t *pools)
{
    for (size_t i = 0; i < json_array_size(pools); i++) {
        if (strcmp(json_string_value(json_array_get(pools, i)), member->pool) == 0)
            return true;
    }
    return false;
}

int xv_find_repository(const struct xv_view *members, const json_t *pools, const char *given,
                       const char **ret, xvsa_error **error)
{
    const char *found = given;
    for (size_t i = 0; given == NULL && i < members->member_count; i++) {
        const struct xv_site_member *member = &members->members[i];
        const char *name;
        json_t *value;
        if (!serves(member, pools))
            continue;
        json_object_foreach((json_t *)(uintptr_t)member->repositories, name, value)
        {
            if (found != NULL && strcmp(found, name) != 0)
                return xv_fail(error, XVSA_ERR_INVALID, "agent",
                               "job.repository: is missing; members have \"%s\", \"%s\" and maybe"
                               " more",
                               found, name);
            found = name;
        }
    }
    if (found == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "agent",
                       "job.repository: is missing, and no living member tells its own");
    *ret = found;
    return 0;
}

static int find_under(struct xv_kv *kv, const char *given, const char *prefix,
                      const struct xv_call *call, struct xv_kv_list *list, xvsa_error **error)
{
    *list = (struct xv_kv_list){0};
    int rc = xv_kv_read(kv, call, list, error, "%s/%s", prefix, given);
    if (rc == 0 && list->count > 1) {
        xv_kv_list_free(list);
        rc = xv_fail(error, XVSA_ERR_CONFLICT, "agent", "several jobs have ids that begin with %s",
                     given);
    }
    return rc;
}

int xv_find_job(struct xv_kv *kv, const char *given, const struct xv_call *call,
                struct xv_kv_list *list, struct xv_kv_pair **ret, xvsa_error **error)
{
    *list = (struct xv_kv_list){0};
    size_t length = strspn(given, "0123456789abcdef");
    if (length < ID_BEGINNING_LEAST || length > XV_SITE_ID_LENGTH || given[length] != '\0')
        return xv_fail(error, XVSA_ERR_INVALID, "agent",
                       "\"%s\" is not the id of a job, or a beginning of at least %d digits of it",
                       given, ID_BEGINNING_LEAST);
    /* A job moves from q to h in one transaction: looked for in this order, it cannot slip through. */
    int rc = find_under(kv, given, "q", call, list, error);
    struct xv_kv_list ended = {0};
    if (rc == 0)
        rc = find_under(kv, given, "h", call, &ended, error);
    if (rc == 0 && list->count + ended.count > 1 &&
        strcmp(xv_key_end(list->pairs[0].key), xv_key_end(ended.pairs[0].key)) != 0)
        rc = xv_fail(error, XVSA_ERR_CONFLICT, "agent", "several jobs have ids that begin with %s",
                     given);
    if (rc == 0 && ended.count > 0) {
        xv_kv_list_free(list);
        *list = ended;
        ended = (struct xv_kv_list){0};
    }
    xv_kv_list_free(&ended);
    if (rc == 0 && list->count == 0)
        rc = xv_fail(error, XVSA_ERR_NOT_FOUND, "agent", "the site has no job %s", given);
    if (rc == 0)
        *ret = &list->pairs[0];
    else
        xv_kv_list_free(list);
    return rc;
}
