/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The object "config": what a repository is, written once.
 */
#ifndef XV_REPO_CONFIG_H
#define XV_REPO_CONFIG_H

#include "repo/object.h"

#define XV_CONFIG_NAME  "config"
#define XV_CONFIG_BODY  128
#define XV_CONFIG_BYTES (XV_HEADER_BYTES + XV_CONFIG_BODY + XV_TRAILER_BYTES)

struct xv_config {
    uint8_t repo_id[XV_HANDLE_BYTES];
    int64_t created_ms;
    uint64_t incompat;  /* an unknown bit: do not open */
    uint64_t ro_compat; /* an unknown bit: do not write */
    uint64_t compat;    /* an unknown bit: ignore */
    uint8_t chunk_log2;
    uint8_t cipher; /* XV_CIPHER_* */
    uint32_t pack_target;
    uint32_t frame_target;
};

int xv_config_encode(const struct xv_config *config, const struct xv_crypt *crypt, uint8_t *out,
                     xvsa_error **error) XV_MUST_CHECK;
/* All but the authentication, which needs the key that the config helps to find. */
int xv_config_decode(const uint8_t *data, size_t length, struct xv_config *ret,
                     xvsa_error **error) XV_MUST_CHECK;
int xv_config_authenticate(const uint8_t *data, const struct xv_crypt *crypt,
                           xvsa_error **error) XV_MUST_CHECK;

#endif
