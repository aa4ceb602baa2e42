/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * event.from: what changed in a pool since a token.
 */
#ifndef XV_XENAPI_EVENTS_H
#define XV_XENAPI_EVENTS_H

#include "xenapi/client.h"

/* classes: an ARRAY of names, or of "name/reference"; taken over, NULL counts as no memory. token "": the
 * present state. seconds: how long the server waits for the first change; 0: not at all. *ret: a STRUCT
 * of "events", "token" and "valid_ref_counts". A token is void in another epoch of the client. */
int xv_events_from(struct xv_client *client, struct xv_value *classes, const char *token,
                   double seconds, const struct xv_call *call, struct xv_value **ret,
                   xvsa_error **error) XV_MUST_CHECK;

#endif
