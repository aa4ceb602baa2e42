/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON document "site".
 */
#include <stdlib.h>
#include <string.h>

#include "agent/site.h"
#include "agent/view.h"
#include "job/json.h"

static json_t *member_to_json(const struct xv_site_member *member, const char *coordinator)
{
    json_t *object = json_deep_copy(member->json);
    if (object != NULL)
        json_object_set_new(object, "coordinator",
                            json_boolean(strcmp(coordinator, member->name) == 0));
    return object;
}

/* Coordinator of a pool and its term, from "coord/". */
static json_t *pool_to_json(const struct xv_site_member *member,
                            const struct xv_kv_list *coordinators)
{
    const struct xv_kv_pair *pair = xv_list_find(coordinators, "coord/%s", member->pool);
    json_t *who = pair == NULL ? NULL : xv_pair_json(pair);
    const char *name = xv_member_text(who, "member");
    json_t *object =
        json_pack("{s:s, s:s, s:o, s:I}", "uuid", member->pool, "name", member->pool_name,
                  "coordinator", name[0] == '\0' ? json_null() : json_string(name), "term",
                  (json_int_t)(pair == NULL ? 0 : pair->create_revision));
    json_decref(who);
    return object;
}

static bool is_listed(const json_t *pools, const char *uuid)
{
    size_t i;
    json_t *pool;
    json_array_foreach(pools, i, pool)
    {
        if (strcmp(xv_member_text(pool, "uuid"), uuid) == 0)
            return true;
    }
    return false;
}

static const char *coordinator_of(const json_t *pools, const char *uuid)
{
    size_t i;
    json_t *pool;
    json_array_foreach(pools, i, pool)
    {
        if (strcmp(xv_member_text(pool, "uuid"), uuid) == 0)
            return xv_member_text(pool, "coordinator");
    }
    return "";
}

int xv_site_members(struct xv_site *site, const struct xv_call *call, char **ret,
                    xvsa_error **error)
{
    struct xv_view view;
    struct xv_kv_list coordinators = {0};
    int rc = xv_view_read_members(xv_site_kv(site), xv_engine_env(xv_site_engine(site)), call,
                                  &view, error);
    if (rc != 0)
        return rc;
    rc = xv_kv_range(xv_site_kv(site), "coord/", call, &coordinators, error);
    if (rc == 0) {
        json_t *pools = json_array();
        json_t *members = json_array();
        for (size_t i = 0; i < view.member_count; i++) {
            if (!is_listed(pools, view.members[i].pool))
                json_array_append_new(pools, pool_to_json(&view.members[i], &coordinators));
        }
        for (size_t i = 0; i < view.member_count; i++)
            json_array_append_new(
                members,
                member_to_json(&view.members[i], coordinator_of(pools, view.members[i].pool)));
        rc = xv_json_print(json_pack("{s:o, s:o}", "pools", pools, "members", members), ret, error);
    }
    xv_kv_list_free(&coordinators);
    xv_view_free(&view);
    return rc;
}
