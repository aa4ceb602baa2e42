/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of file disks, and what the streams of all disks share.
 */
#ifndef XV_DISK_FILE_H
#define XV_DISK_FILE_H

#include <stdatomic.h>

#include "disk/disk.h"

struct xv_file_disk {
    struct xv_disk disk;
    int fd;
    int direct_fd;      /* the same past the page cache; -1: none */
    atomic_bool direct; /* false once the device refused it */
    bool writable;
    uint32_t in_flight;
    char *label; /* for messages: path and name */
};

/* Reads or writes all of [offset, offset + length). */
int xv_file_move(struct xv_file_disk *file, bool is_write, uint64_t offset, void *data,
                 size_t length, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* The stream operation: several threads read at once. */
int xv_file_stream(struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
/* The write operation. */
int xv_file_write(struct xv_disk *disk, struct xv_block_queue *queue, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;

/* Tells why a block could not be taken: the call ended, or the consumer stopped the queue. */
int xv_disk_fail_taking(const struct xv_call *call, xvsa_error **error);
/* Where the block that begins at offset ends: at a multiple of its capacity, so that one chunk never lies
 * in two of them, or at end. */
uint64_t xv_disk_piece_end(uint64_t offset, uint64_t end, uint32_t capacity);

#endif
