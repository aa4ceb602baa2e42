/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/events.h"

#include "xenapi/operations_internal.h"

#define SLACK_MS 20000 /* for the answer to arrive after the server's own timeout */

static struct xv_value *make_params(struct xv_value *classes, const char *token, double seconds)
{
    struct xv_value *params = xv_value_new_array();
    bool good = xv_value_add(params, classes);
    good = good && xv_value_add(params, xv_value_new_string(token));
    good = good && xv_value_add(params, xv_value_new_double(seconds));
    if (good)
        return params;
    xv_value_free(params);
    return NULL;
}

int xv_events_from(struct xv_client *client, struct xv_value *classes, const char *token,
                   double seconds, const struct xv_call *call, struct xv_value **ret,
                   xvsa_error **error)
{
    struct xv_call limit = xv_call_within(call, (int64_t)(seconds * 1000) + SLACK_MS);
    struct xv_value *answer = NULL;
    int rc = xv_ask(client, "event.from", make_params(classes, token, seconds), true, &limit,
                    &answer, error);
    if (rc == 0 && xv_value_kind(xv_value_get(answer, "events")) != XV_VALUE_ARRAY) {
        xv_value_free(answer);
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "event.from answers without events");
    }
    if (rc == 0)
        *ret = answer;
    return rc;
}
