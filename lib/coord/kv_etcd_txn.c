/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Transactions in etcd, exactly once. Each belongs to a chain (a slot): it compares the revision of the
 * chain's own key and puts it with a nonce. Sent again because an answer was lost, it finds either that
 * revision, and is applied for the first time, or its own nonce, and was applied before. When it finds
 * that its other compares do not hold, an earlier copy may still be on its way and meet them later: the
 * chain's key is put once more then, after which no copy can be applied.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coord/kv_etcd.h"

#define COMPONENT      XV_KV_COMPONENT
#define ANSWER_CEILING (1u << 20)

static struct xv_etcd_slot *new_slot(struct xv_kv_etcd *self)
{
    struct xv_etcd_slot *slot = calloc(1, sizeof *slot);
    pthread_mutex_lock(&self->lock);
    uint32_t number = self->slot_count++;
    pthread_mutex_unlock(&self->lock);
    if (slot != NULL && asprintf(&slot->key, "%s%u", self->own_prefix, number) < 0) {
        free(slot);
        return NULL;
    }
    return slot;
}

static struct xv_etcd_slot *take_slot(struct xv_kv_etcd *self)
{
    pthread_mutex_lock(&self->lock);
    struct xv_etcd_slot *slot = self->idle;
    if (slot != NULL)
        self->idle = slot->next;
    pthread_mutex_unlock(&self->lock);
    return slot != NULL ? slot : new_slot(self);
}

static void give_slot(struct xv_kv_etcd *self, struct xv_etcd_slot *slot)
{
    pthread_mutex_lock(&self->lock);
    slot->next = self->idle;
    self->idle = slot;
    pthread_mutex_unlock(&self->lock);
}

static int make_nonce(char nonce[XV_ETCD_NONCE_MAX + 1], xvsa_error **error)
{
    unsigned char random[XV_ETCD_NONCE_MAX / 2];
    int rc = xv_random(random, sizeof random, error);
    xv_hex_encode(random, sizeof random, nonce);
    return rc;
}

/* What a transaction is made of. */
struct txn {
    char nonce[XV_ETCD_NONCE_MAX + 1];
    const struct xv_kv_compare *compares;
    size_t compare_count;
    const struct xv_kv_op *ops;
    size_t op_count;
};

static int send_txn(struct xv_kv_etcd *self, const struct xv_etcd_slot *slot, const struct txn *txn,
                    const struct xv_call *call, struct xv_etcd_reply *reply,
                    struct xv_etcd_txn_answer *answer, xvsa_error **error)
{
    *reply = (struct xv_etcd_reply){0};
    struct xv_etcd_request request = {
        .what = "run a transaction",
        .target = "/v3/kv/txn",
        .body = xv_etcd_make_txn(slot, txn->nonce, txn->compares, txn->compare_count, txn->ops,
                                 txn->op_count),
        .try_ms = XV_ETCD_TRY_MS,
        .ceiling = ANSWER_CEILING,
    };
    if (request.body == NULL)
        return xv_fail_memory(error);
    int rc = xv_etcd_call(self, &request, call, reply, error);
    json_decref(request.body);
    if (rc == 0) {
        rc = xv_etcd_read_txn(reply->body, answer, error);
        /* An answer that makes no sense tells nothing about what was done. */
        reply->uncertain = reply->uncertain || rc != 0;
    }
    json_decref(reply->body);
    reply->body = NULL;
    return rc;
}

/* Makes sure that no earlier transaction of the slot can be applied any more, and tells whether the one
 * with that nonce was. */
static int settle(struct xv_kv_etcd *self, struct xv_etcd_slot *slot, const char *nonce,
                  const struct xv_call *call, bool *ret_applied, xvsa_error **error)
{
    struct txn fence = {.nonce = ""};
    struct xv_etcd_reply reply;
    struct xv_etcd_txn_answer answer;
    *ret_applied = false;
    slot->unsettled = true;
    int rc = make_nonce(fence.nonce, error);
    if (rc == 0)
        rc = send_txn(self, slot, &fence, call, &reply, &answer, error);
    if (rc != 0)
        return rc;
    *ret_applied = !answer.succeeded && nonce != NULL && strcmp(answer.nonce, nonce) == 0;
    slot->revision = answer.succeeded ? answer.revision : answer.slot_revision;
    slot->unsettled = false;
    return 0;
}

static int unknown(struct xv_etcd_slot *slot, xvsa_error **error)
{
    slot->unsettled = true;
    return xv_error_wrap(error, XVSA_ERR_UNKNOWN_OUTCOME, COMPONENT,
                         "a transaction of the coordination store may or may not have happened");
}

/* The server said no to a copy, after another copy may have been applied. */
static int settle_failure(struct xv_kv_etcd *self, struct xv_etcd_slot *slot, const struct txn *txn,
                          const struct xv_call *call, int rc, bool *ret_succeeded,
                          int64_t *ret_revision, xvsa_error **error)
{
    bool applied = false;
    if (settle(self, slot, txn->nonce, call, &applied, NULL) != 0)
        return unknown(slot, error);
    if (!applied)
        return rc;
    xv_error_clear(error);
    *ret_succeeded = true;
    *ret_revision = slot->revision;
    return 0;
}

/* *ret_again: the slot's key was not as remembered and nothing was applied. */
static int run(struct xv_kv_etcd *self, struct xv_etcd_slot *slot, const struct txn *txn,
               const struct xv_call *call, bool *ret_succeeded, int64_t *ret_revision,
               bool *ret_again, xvsa_error **error)
{
    struct xv_etcd_reply reply;
    struct xv_etcd_txn_answer answer;
    *ret_again = false;
    int rc = send_txn(self, slot, txn, call, &reply, &answer, error);
    if (rc != 0 && !reply.uncertain)
        return rc;
    if (rc != 0 && reply.refused)
        return settle_failure(self, slot, txn, call, rc, ret_succeeded, ret_revision, error);
    if (rc != 0)
        return unknown(slot, error);
    *ret_revision = answer.revision;
    bool before = !answer.succeeded && strcmp(answer.nonce, txn->nonce) == 0;
    if (answer.succeeded || before) {
        if (before)
            *ret_revision = answer.slot_revision;
        slot->revision = *ret_revision;
        *ret_succeeded = true;
        return 0;
    }
    if (answer.slot_revision != slot->revision) {
        /* Somebody wiped the store or cleaned it: no copy can be applied either. */
        slot->revision = answer.slot_revision;
        *ret_again = true;
        return 0;
    }
    if (!reply.uncertain)
        return 0;
    rc = settle(self, slot, txn->nonce, call, ret_succeeded, error);
    if (rc != 0)
        return unknown(slot, error);
    if (*ret_succeeded)
        *ret_revision = slot->revision;
    return 0;
}

int xv_kv_etcd_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
                   const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
                   bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error)
{
    struct xv_kv_etcd *self = (struct xv_kv_etcd *)kv;
    struct txn txn = {"", compares, compare_count, ops, op_count};
    *ret_succeeded = false;
    int rc = make_nonce(txn.nonce, error);
    if (rc != 0)
        return rc;
    struct xv_etcd_slot *slot = take_slot(self);
    if (slot == NULL)
        return xv_fail_memory(error);
    bool again = true;
    bool earlier = false;
    if (slot->unsettled)
        rc = settle(self, slot, NULL, call, &earlier, error);
    xvsa_error *failure = NULL;
    while (rc == 0 && again)
        rc = run(self, slot, &txn, call, ret_succeeded, ret_revision, &again, &failure);
    if (failure != NULL && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    give_slot(self, slot);
    return rc;
}
