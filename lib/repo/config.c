/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/config.h"

#include "repo/fault.h"

#define MAC_AT 96 /* in the body */

static int authenticator(const uint8_t *data, const struct xv_crypt *crypt, uint8_t *ret_mac,
                         xvsa_error **error)
{
    struct xv_piece pieces[] = {{XV_CONFIG_NAME, strlen(XV_CONFIG_NAME)},
                                {data, XV_HEADER_BYTES + MAC_AT}};
    return xv_crypt_mac(crypt, XV_KEY_MAC, pieces, 2, ret_mac, error);
}

int xv_config_encode(const struct xv_config *config, const struct xv_crypt *crypt, uint8_t *out,
                     xvsa_error **error)
{
    struct xv_header header = {.type = XV_TYPE_CONFIG, .body_length = XV_CONFIG_BODY};
    memcpy(header.repo_id, config->repo_id, XV_HANDLE_BYTES);
    xv_header_encode(&header, out);
    uint8_t *body = out + XV_HEADER_BYTES;
    memset(body, 0, XV_CONFIG_BODY);
    memcpy(body, config->repo_id, XV_HANDLE_BYTES);
    xv_put64(body + 16, (uint64_t)config->created_ms);
    xv_put64(body + 24, config->incompat);
    xv_put64(body + 32, config->ro_compat);
    xv_put64(body + 40, config->compat);
    body[48] = config->chunk_log2;
    body[49] = XV_FAN_LOG2;
    body[50] = 1; /* ids: HMAC-SHA-256 */
    body[51] = config->cipher;
    body[52] = 1; /* compression: zstd */
    body[53] = 1; /* checksums: XXH3-64 */
    xv_put32(body + 56, config->pack_target);
    xv_put32(body + 60, config->frame_target);
    int rc = authenticator(out, crypt, body + MAC_AT, error);
    if (rc == 0)
        xv_object_finish(out, XV_HEADER_BYTES + XV_CONFIG_BODY);
    return rc;
}

int xv_config_decode(const uint8_t *data, size_t length, struct xv_config *ret, xvsa_error **error)
{
    struct xv_header header;
    const uint8_t *body;
    int rc = xv_object_check(data, length, XV_TYPE_CONFIG, XV_CONFIG_NAME, &header, &body, error);
    if (rc != 0)
        return rc;
    if (header.body_length != XV_CONFIG_BODY || memcmp(body, header.repo_id, XV_HANDLE_BYTES) != 0)
        return xv_fault(error, XV_CONFIG_NAME, "its parts do not fit together");
    memcpy(ret->repo_id, body, XV_HANDLE_BYTES);
    ret->created_ms = (int64_t)xv_get64(body + 16);
    ret->incompat = xv_get64(body + 24);
    ret->ro_compat = xv_get64(body + 32);
    ret->compat = xv_get64(body + 40);
    ret->chunk_log2 = body[48];
    ret->cipher = body[51];
    ret->pack_target = xv_get32(body + 56);
    ret->frame_target = xv_get32(body + 60);
    if (ret->incompat != 0 || body[49] != XV_FAN_LOG2 || body[50] != 1 || body[52] != 1 ||
        body[53] != 1 || ret->cipher > XV_CIPHER_GCM)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "the repository uses features that this version does not know");
    if (ret->chunk_log2 < XV_CHUNK_LOG2_MIN || ret->chunk_log2 > XV_CHUNK_LOG2_MAX ||
        ret->pack_target < XV_CHUNK_MAX || ret->pack_target > XV_OBJECT_MAX / 2 ||
        ret->frame_target < 1u << ret->chunk_log2 || ret->frame_target > XV_FRAME_RAW_MAX)
        return xv_fault(error, XV_CONFIG_NAME, "a parameter is out of bounds");
    return 0;
}

int xv_config_authenticate(const uint8_t *data, const struct xv_crypt *crypt, xvsa_error **error)
{
    uint8_t mac[XV_ID_BYTES];
    int rc = authenticator(data, crypt, mac, error);
    if (rc == 0 && !xv_same(mac, data + XV_HEADER_BYTES + MAC_AT, sizeof mac))
        rc = xv_fault(error, XV_CONFIG_NAME, "its authentication failed");
    return rc;
}
