/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * URLs of pool members: scheme, host and port.
 */
#ifndef XV_NET_URL_H
#define XV_NET_URL_H

#include "base/error.h"

struct xv_url {
    bool tls;
    uint16_t port;
    char host[256]; /* name or address; IPv6 without brackets */
};

/* Reads "https://host", "http://[::1]:8080/" or a bare host, which means https. Refuses credentials,
 * paths, queries and other schemes. */
int xv_url_parse(const char *text, struct xv_url *ret, xvsa_error **error) XV_MUST_CHECK;

/* "https://[::1]:8443"; size at least 300. */
void xv_url_format(const struct xv_url *url, char *text, size_t size);

/* True for the same scheme, host and port. */
bool xv_url_equal(const struct xv_url *a, const struct xv_url *b);

#endif
