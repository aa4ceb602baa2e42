/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading a tree. A few nodes are kept: whoever walks a disk in order meets each node once.
 */
#include <pthread.h>
#include <stdlib.h>

#include "repo/internal.h"

#define SLOTS 64u

struct slot {
    uint64_t index;
    uint32_t used; /* when, by xv_tree's clock */
    bool filled;
    struct xv_node node;
};

struct xv_tree {
    struct xv_repo *repo;
    struct xv_root root;
    struct xv_baton fetching; /* held by who uses opener and fetch */
    struct xv_frame_opener *opener;
    struct xv_fetch fetch;
    pthread_mutex_t lock; /* guards what follows */
    uint32_t clock;
    struct slot *slots; /* SLOTS */
};

int xv_tree_new(struct xv_repo *repo, const struct xv_root *root, struct xv_tree **ret,
                xvsa_error **error)
{
    struct xv_tree *tree = calloc(1, sizeof *tree);
    if (tree == NULL)
        return xv_fail_memory(error);
    tree->repo = repo;
    tree->root = *root;
    xv_baton_init(&tree->fetching);
    pthread_mutex_init(&tree->lock, NULL);
    tree->slots = calloc(SLOTS, sizeof *tree->slots);
    int rc = tree->slots == NULL ? xv_fail_memory(error)
                                 : xv_frame_opener_new(repo->crypt, &tree->opener, error);
    if (rc != 0) {
        xv_tree_free(tree);
        return rc;
    }
    *ret = tree;
    return 0;
}

void xv_tree_free(struct xv_tree *tree)
{
    if (tree == NULL)
        return;
    xv_frame_opener_free(tree->opener);
    xv_fetch_free(&tree->fetch);
    free(tree->slots);
    pthread_mutex_destroy(&tree->lock);
    xv_baton_destroy(&tree->fetching);
    free(tree);
}

void xv_node_fill(struct xv_node *node, unsigned level, uint8_t kind)
{
    node->level = (uint8_t)level;
    memset(node->kinds, kind, sizeof node->kinds);
}

static bool look_up(struct xv_tree *tree, unsigned level, uint64_t index, struct xv_node *ret)
{
    bool found = false;
    pthread_mutex_lock(&tree->lock);
    for (unsigned i = 0; i < SLOTS && !found; i++) {
        struct slot *slot = &tree->slots[i];
        if (slot->filled && slot->index == index && slot->node.level == level) {
            slot->used = ++tree->clock;
            *ret = slot->node;
            found = true;
        }
    }
    pthread_mutex_unlock(&tree->lock);
    return found;
}

static void keep(struct xv_tree *tree, uint64_t index, const struct xv_node *node)
{
    pthread_mutex_lock(&tree->lock);
    struct slot *oldest = &tree->slots[0];
    for (unsigned i = 1; i < SLOTS && oldest->filled; i++) {
        if (!tree->slots[i].filled || tree->slots[i].used < oldest->used)
            oldest = &tree->slots[i];
    }
    oldest->index = index;
    oldest->used = ++tree->clock;
    oldest->filled = true;
    oldest->node = *node;
    pthread_mutex_unlock(&tree->lock);
}

static int load(struct xv_tree *tree, const struct xv_ref *ref, unsigned level, struct xv_node *ret,
                const struct xv_call *call, xvsa_error **error)
{
    const uint8_t *data;
    uint32_t length;
    int rc = xv_baton_take(&tree->fetching, call, error);
    if (rc != 0)
        return rc;
    rc = xv_fetch_ref(tree->repo, tree->opener, true, ref, &tree->fetch, &data, &length, call,
                      error);
    if (rc == 0)
        rc = xv_node_decode(data, length, tree->fetch.object, ret, error);
    if (rc == 0 && ret->level != level)
        rc = xv_fault(error, tree->fetch.object, "a tree node is of level %u instead of %u",
                      ret->level, level);
    xv_baton_give(&tree->fetching);
    return rc;
}

int xv_tree_entry(struct xv_tree *tree, unsigned level, uint64_t index, uint8_t *ret_kind,
                  struct xv_ref *ret, const struct xv_call *call, xvsa_error **error)
{
    if (level >= tree->root.level) {
        /* Beyond the root only the first place has anything. */
        bool is_root = level == tree->root.level && index == 0;
        *ret_kind = is_root ? tree->root.kind : XV_KIND_HOLE;
        if (is_root)
            *ret = tree->root.ref;
        return 0;
    }
    struct xv_node *parent = malloc(sizeof *parent);
    if (parent == NULL)
        return xv_fail_memory(error);
    int rc = xv_tree_node(tree, level + 1, index / XV_FAN, parent, call, error);
    if (rc == 0) {
        *ret_kind = parent->kinds[index % XV_FAN];
        *ret = parent->refs[index % XV_FAN];
    }
    free(parent);
    return rc;
}

int xv_tree_node(struct xv_tree *tree, unsigned level, uint64_t index, struct xv_node *ret,
                 const struct xv_call *call, xvsa_error **error)
{
    if (look_up(tree, level, index, ret))
        return 0;
    uint8_t kind = XV_KIND_HOLE;
    struct xv_ref ref = {0};
    int rc = xv_tree_entry(tree, level, index, &kind, &ref, call, error);
    if (rc != 0)
        return rc;
    if (kind != XV_KIND_DATA) {
        xv_node_fill(ret, level, kind);
        return 0;
    }
    rc = load(tree, &ref, level, ret, call, error);
    if (rc == 0)
        keep(tree, index, ret);
    return rc;
}

void xv_run_begin(struct xv_run *run, struct xv_tree *tree, uint64_t chunks, uint64_t first)
{
    run->tree = tree;
    run->chunks = chunks;
    run->next = first;
    run->have_leaf = false;
}

/* The leaf that holds a chunk, or the largest subtree without data around it: *ret_level says which. */
static int find_leaf(struct xv_run *run, uint64_t chunk, unsigned *ret_level, uint8_t *ret_kind,
                     const struct xv_call *call, xvsa_error **error)
{
    *ret_level = 0;
    *ret_kind = XV_KIND_DATA;
    if (run->have_leaf && run->leaf_index == chunk / XV_FAN)
        return 0;
    run->have_leaf = false;
    for (unsigned level = run->tree->root.level;; level--) {
        struct xv_ref ref;
        int rc = xv_tree_entry(run->tree, level, chunk / xv_node_span(level + 1), ret_kind, &ref,
                               call, error);
        *ret_level = level;
        if (rc != 0 || *ret_kind != XV_KIND_DATA)
            return rc;
        if (level == 0)
            break;
    }
    int rc = xv_tree_node(run->tree, 0, chunk / XV_FAN, &run->leaf, call, error);
    run->leaf_index = chunk / XV_FAN;
    run->have_leaf = rc == 0;
    return rc;
}

/* What is at a chunk, and where that ends. */
static int look_at(struct xv_run *run, uint64_t chunk, uint8_t *ret_kind, uint64_t *ret_end,
                   const struct xv_call *call, xvsa_error **error)
{
    unsigned level;
    int rc = find_leaf(run, chunk, &level, ret_kind, call, error);
    if (rc != 0)
        return rc;
    if (!run->have_leaf) {
        uint64_t span = xv_node_span(level + 1);
        *ret_end = (chunk / span + 1) * span;
        return 0;
    }
    *ret_kind = run->leaf.kinds[chunk % XV_FAN];
    *ret_end = chunk + 1;
    return 0;
}

int xv_run_next(struct xv_run *run, uint64_t end, bool *ret, const struct xv_call *call,
                xvsa_error **error)
{
    if (end > run->chunks)
        end = run->chunks;
    *ret = run->next < end;
    run->first = run->next;
    run->count = 0;
    while (run->next < end) {
        uint8_t kind;
        uint64_t until;
        int rc = look_at(run, run->next, &kind, &until, call, error);
        if (rc != 0)
            return rc;
        if (run->count > 0 && (kind != run->kind || kind == XV_KIND_DATA))
            break;
        if (kind == XV_KIND_DATA)
            run->ref = run->leaf.refs[run->next % XV_FAN];
        run->kind = kind;
        run->next = until < end ? until : end;
        run->count = run->next - run->first;
    }
    return 0;
}
