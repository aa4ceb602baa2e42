/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The dynamic VHD stream that a host makes of a disk: which blocks it holds and in which order.
 */
#ifndef XV_XENAPI_VHD_H
#define XV_XENAPI_VHD_H

#include "diff/extents.h"

#define XV_VHD_SECTOR   512
#define XV_VHD_FOOTER   512
#define XV_VHD_HEADER   1024
#define XV_VHD_SIZE_MAX 2190433320960ull /* bytes; larger disks have no VHD form */

struct xv_vhd_block {
    uint64_t position; /* of its bitmap in the stream */
    uint32_t index;    /* in the disk, in blocks */
};

struct xv_vhd {
    unsigned char footer[XV_VHD_FOOTER];
    uint64_t size;
    uint64_t table_position;
    uint32_t table_entries;
    uint32_t block_size;
    uint32_t bitmap_size;
    struct xv_vhd_block *blocks; /* in the order of the stream */
    size_t block_count;
};

/* Reads footer copy and header. Fails with PROTOCOL. */
int xv_vhd_parse_head(const unsigned char *footer, const unsigned char *header, struct xv_vhd *ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* Reads the block table, table_entries times 4 bytes. */
int xv_vhd_parse_table(struct xv_vhd *vhd, const unsigned char *table,
                       xvsa_error **error) XV_MUST_CHECK;
void xv_vhd_free(struct xv_vhd *vhd);
/* The ranges of the disk that its blocks cover, cut at size. */
int xv_vhd_extents(const struct xv_vhd *vhd, uint64_t size, struct xv_extents *ret,
                   xvsa_error **error) XV_MUST_CHECK;

#endif
