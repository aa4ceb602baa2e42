/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How deep the chains of copy-on-write disks are, as far as XenAPI tells: sm_config["vhd-parent"] names a
 * node's parent on SRs whose driver keeps VHD or QCOW2 chains. Other drivers say nothing, and a chain has
 * one node there.
 */
#include <stdlib.h>

#include "xenapi/inventory_store.h"

#define CHAIN_MAX 256 /* a pool whose parents go round in a circle is not followed for ever */

/* The parent's place among the VDIs, or SIZE_MAX. */
static size_t parent_of(const struct xv_store *store, size_t index)
{
    const struct xv_vdi *vdis = store->public.vdis;
    const struct xv_vdi *parent = xv_store_find(store, XV_KIND_VDI, vdis[index].vhd_parent);
    return parent == NULL || parent->sr != vdis[index].sr ? SIZE_MAX : (size_t)(parent - vdis);
}

static void measure(struct xv_vdi *vdis, const size_t *parents, const uint32_t *children,
                    size_t index)
{
    struct xv_vdi *vdi = &vdis[index];
    vdi->chain = 1;
    vdi->coalescible = false;
    for (size_t at = parents[index]; at != SIZE_MAX && vdi->chain < CHAIN_MAX; at = parents[at]) {
        vdi->chain++;
        if (!vdis[at].managed && children[at] == 1)
            vdi->coalescible = true;
    }
}

int xv_store_link_chains(struct xv_store *store, xvsa_error **error)
{
    struct xv_vdi *vdis = store->vdis.items;
    size_t count = store->vdis.count;
    size_t *parents = calloc(count + 1, sizeof *parents);
    uint32_t *children = calloc(count + 1, sizeof *children);
    if (parents == NULL || children == NULL) {
        free(parents);
        free(children);
        return xv_fail_memory(error);
    }
    for (size_t i = 0; i < count; i++) {
        parents[i] = parent_of(store, i);
        if (parents[i] != SIZE_MAX)
            children[parents[i]]++;
    }
    for (size_t i = 0; i < count; i++)
        measure(vdis, parents, children, i);
    free(parents);
    free(children);
    return 0;
}
