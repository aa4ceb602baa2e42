/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Single records and their tags, and the calls that all operations make.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/operations_internal.h"

#define METHOD_MAX    96
#define ADD_TRIES     3
#define FIND_TRIES    3
#define FIND_PAUSE_MS 1000

bool xv_is_null_ref(const char *ref)
{
    return ref == NULL || ref[0] == '\0' || strcmp(ref, XV_NULL_REF) == 0;
}

int xv_ask(struct xv_client *client, const char *method, struct xv_value *params, bool idempotent,
           const struct xv_call *call, struct xv_value **ret, xvsa_error **error)
{
    if (params == NULL)
        return xv_fail_memory(error);
    int rc = xv_client_call(client, method, params, idempotent, call, ret, error);
    xv_value_free(params);
    return rc;
}

int xv_ask_text(struct xv_client *client, const char *method, struct xv_value *params,
                const struct xv_call *call, char **ret, xvsa_error **error)
{
    struct xv_value *value = NULL;
    int rc = xv_ask(client, method, params, true, call, &value, error);
    if (rc != 0)
        return rc;
    const char *text = xv_value_string(value, NULL);
    if (text == NULL)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s answers with no text", method);
    else if ((*ret = strdup(text)) == NULL)
        rc = xv_fail_memory(error);
    xv_value_free(value);
    return rc;
}

int xv_run(struct xv_client *client, const char *method, struct xv_value *params,
           const struct xv_call *call, char **ret_text, xvsa_error **error)
{
    struct xv_value *value = NULL;
    if (params == NULL)
        return xv_fail_memory(error);
    int rc = xv_client_run(client, method, params, call, ret_text == NULL ? NULL : &value, error);
    xv_value_free(params);
    if (rc == 0 && ret_text != NULL) {
        const char *text = xv_value_string(value, NULL);
        if (text == NULL)
            rc =
                xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s ends without a result", method);
        else if ((*ret_text = strdup(text)) == NULL)
            rc = xv_fail_memory(error);
    }
    xv_value_free(value);
    return rc;
}

int xv_record_get(struct xv_client *client, const char *class_name, const char *ref,
                  const struct xv_call *call, struct xv_value **ret, xvsa_error **error)
{
    char method[METHOD_MAX];
    snprintf(method, sizeof method, "%s.get_record", class_name);
    int rc = xv_ask(client, method, xv_params(ref, NULL), true, call, ret, error);
    if (rc == 0 && xv_value_kind(*ret) != XV_VALUE_STRUCT) {
        xv_value_free(*ret);
        *ret = NULL;
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s answers with no record", method);
    }
    return rc;
}

int xv_record_find(struct xv_client *client, const char *class_name, const char *uuid,
                   const struct xv_call *call, char **ret_ref, xvsa_error **error)
{
    char method[METHOD_MAX];
    snprintf(method, sizeof method, "%s.get_by_uuid", class_name);
    return xv_ask_text(client, method, xv_params(uuid, NULL), call, ret_ref, error);
}

int xv_record_unset_tag(struct xv_client *client, const char *class_name, const char *ref,
                        const char *key, const struct xv_call *call, xvsa_error **error)
{
    char method[METHOD_MAX];
    xvsa_error *failure = NULL;
    snprintf(method, sizeof method, "%s.remove_from_other_config", class_name);
    int rc = xv_ask(client, method, xv_params(ref, key, NULL), true, call, NULL, &failure);
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_record_set_tag(struct xv_client *client, const char *class_name, const char *ref,
                      const char *key, const char *value, const struct xv_call *call,
                      xvsa_error **error)
{
    char removal[METHOD_MAX];
    char addition[METHOD_MAX];
    snprintf(removal, sizeof removal, "%s.remove_from_other_config", class_name);
    snprintf(addition, sizeof addition, "%s.add_to_other_config", class_name);
    /* add_to fails on a key that is there, also when its first answer was lost. */
    for (int attempt = 1;; attempt++) {
        xvsa_error *failure = NULL;
        int rc = xv_ask(client, removal, xv_params(ref, key, NULL), true, call, NULL, &failure);
        if (rc == 0)
            rc = xv_ask(client, addition, xv_params(ref, key, value, NULL), true, call, NULL,
                        &failure);
        if (rc == 0)
            return 0;
        if (xv_error_is_xenapi(failure, "MAP_DUPLICATE_KEY") && attempt < ADD_TRIES) {
            xvsa_error_unref(failure);
            continue;
        }
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
}

int xv_created_id(char id[XV_CREATED_ID], xvsa_error **error)
{
    unsigned char random[(XV_CREATED_ID - 1) / 2];
    int rc = xv_random(random, sizeof random, error);
    if (rc == 0)
        xv_hex_encode(random, sizeof random, id);
    return rc;
}

struct search {
    const char *key, *id;
    char *ref;
};

static int match(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct search *search = user;
    const char *id = xv_value_get_string(xv_value_get(record, "other_config"), search->key, NULL);
    /* Snapshots inherit the marks of what they are made of. */
    if (search->ref != NULL || id == NULL || strcmp(id, search->id) != 0 ||
        xv_value_get_bool(record, "is_a_snapshot", false))
        return 0;
    search->ref = strdup(ref);
    return search->ref == NULL ? xv_fail_memory(error) : 0;
}

int xv_created_look(struct xv_client *client, const char *class_name, const char *id,
                    const struct xv_call *call, char **ret_ref, xvsa_error **error)
{
    struct search search = {.key = XV_CREATED_KEY, .id = id};
    int rc = xv_client_each_record(client, class_name, match, &search, call, error);
    if (rc == 0 && search.ref == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, XV_COMPONENT, "no %s was created with id %s",
                       class_name, id);
    if (rc != 0) {
        free(search.ref);
        return rc;
    }
    *ret_ref = search.ref;
    return 0;
}

/* What was to create it may still be running: it is looked for a few times. */
int xv_created_find(struct xv_client *client, const char *class_name, const char *key,
                    const char *id, const struct xv_call *call, char **ret_ref, xvsa_error **error)
{
    struct search search = {.key = key, .id = id};
    for (int attempt = 1; search.ref == NULL; attempt++) {
        int rc = xv_client_each_record(client, class_name, match, &search, call, error);
        if (rc == 0 && search.ref == NULL && attempt == FIND_TRIES)
            rc = xv_fail(error, XVSA_ERR_UNKNOWN_OUTCOME, XV_COMPONENT,
                         "an answer was lost and no %s was created so far", class_name);
        if (rc == 0 && search.ref == NULL)
            rc = xv_call_sleep(call, FIND_PAUSE_MS, XV_COMPONENT, "looking for what was created",
                               error);
        if (rc != 0) {
            free(search.ref);
            return rc;
        }
    }
    *ret_ref = search.ref;
    return 0;
}
