/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The header that begins every stored object, the checksum that ends the small ones, and objects whose
 * body is sealed as one message.
 */
#ifndef XV_REPO_OBJECT_H
#define XV_REPO_OBJECT_H

#include "repo/crypt.h"
#include "target/target.h"

#define XV_OBJECT_SEALED 0x1

struct xv_header {
    uint8_t type;
    uint8_t flags; /* XV_OBJECT_SEALED */
    uint8_t repo_id[XV_HANDLE_BYTES];
    uint64_t body_length; /* what follows the header, a trailer not included */
    uint8_t nonce[XV_NONCE_BYTES];
};

void xv_header_encode(const struct xv_header *header, uint8_t *out);
/* FORMAT for a newer version, CORRUPT for everything else that is wrong. Does not compare repo_id. */
int xv_header_decode(const uint8_t *data, size_t length, uint8_t type, const char *name,
                     struct xv_header *ret, xvsa_error **error) XV_MUST_CHECK;

/* Checks header, length and trailing checksum of a whole object; *ret_body points into data. */
int xv_object_check(const uint8_t *data, size_t length, uint8_t type, const char *name,
                    struct xv_header *ret, const uint8_t **ret_body,
                    xvsa_error **error) XV_MUST_CHECK;
/* Writes the checksum over the first length bytes behind them. */
void xv_object_finish(uint8_t *data, size_t length);

/* Makes a whole sealed object of a body; the caller frees it. */
int xv_object_seal(const struct xv_crypt *crypt, uint8_t type, const char *name, const void *body,
                   size_t length, uint8_t **ret, size_t *ret_length,
                   xvsa_error **error) XV_MUST_CHECK;
/* Checks and opens one; the body is followed by a zero byte and freed by the caller. */
int xv_object_unseal(const struct xv_crypt *crypt, uint8_t type, const char *name,
                     const uint8_t *data, size_t length, uint8_t **ret, size_t *ret_length,
                     xvsa_error **error) XV_MUST_CHECK;

#endif
