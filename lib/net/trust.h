/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which TLS certificates are trusted: those of pinned SHA-256 fingerprints, those a CA signed for the
 * host's name, or the first one seen. Never none. Thread-safe.
 */
#ifndef XV_NET_TRUST_H
#define XV_NET_TRUST_H

#include "base/error.h"

#define XV_FINGERPRINT_TEXT 65 /* 64 hex digits and a zero byte */

struct xv_trust;

struct xv_trust_options {
    const char *ca_file;             /* PEM; NULL: the system's store */
    const char *const *fingerprints; /* when there are any, nothing else is trusted but what
                                        xv_trust_pin adds */
    uint32_t fingerprint_count;
    bool first_use; /* without ca_file and fingerprints: pin the first certificate seen */
};

int xv_trust_new(const struct xv_trust_options *options, struct xv_trust **ret,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_trust_free(struct xv_trust *trust);

/* Also trusts a certificate that was learnt over a trusted connection. Hex digits, colons allowed. */
int xv_trust_pin(struct xv_trust *trust, const char *fingerprint, xvsa_error **error) XV_MUST_CHECK;
int xv_trust_pin_pem(struct xv_trust *trust, const char *pem, xvsa_error **error) XV_MUST_CHECK;

/* CA file to load, NULL when no CA is consulted at all. *ret_system tells to load the system's. */
const char *xv_trust_ca_file(const struct xv_trust *trust, bool *ret_system);

/* The verdict about one connection; outlives it. */
struct xv_trust_check {
    struct xv_trust *trust;
    const char *host; /* name or address that the certificate must be for, without brackets */
    char seen[XV_FINGERPRINT_TEXT];
    char reason[256];
    bool refused;
};

/* Makes an OpenSSL SSL_CTX ask the trust; check must outlive the context. */
void xv_trust_attach(void *ssl_ctx, struct xv_trust_check *check);

/* Fills error with TLS, the expected and the seen fingerprint. */
int xv_trust_fail(const struct xv_trust_check *check, const char *peer, xvsa_error **error);

#endif
