/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an etcd server, or somebody in its place, answers. Read as each of the shapes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coord/kv_etcd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pairs(const struct xv_kv_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct xv_kv_pair *pair = &list->pairs[i];
        if (pair->key[0] == '\0' || pair->value[pair->length] != '\0' ||
            pair->create_revision < 1 || pair->mod_revision < pair->create_revision)
            abort();
    }
}

static void read_answer(const json_t *answer)
{
    struct xv_kv_list list = {0};
    struct xv_etcd_txn_answer txn;
    size_t bytes = 0;
    int64_t number = 0;
    xvsa_error *error = NULL;
    (void)(xv_etcd_read_pairs(answer, &list, &bytes, &error) == 0);
    check_pairs(&list);
    xv_kv_list_free(&list);
    xv_error_clear(&error);
    if (xv_etcd_read_txn(answer, &txn, &error) == 0 &&
        (txn.revision < 1 || strlen(txn.nonce) > XV_ETCD_NONCE_MAX))
        abort();
    xv_error_clear(&error);
    if (xv_etcd_get_number(json_object_get(answer, "result"), "TTL", &number, &error) != 0 &&
        number != 0)
        abort();
    xv_error_clear(&error);
}

static void check_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < 0x20 || *text >= 0x7f)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xv_etcd_failure failure;
    json_t *answer = NULL;
    xvsa_error *error = NULL;
    /* The reader sees a zero byte behind, as in a buffer. */
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (xv_etcd_parse(text, size, &answer, &error) == 0)
        read_answer(answer);
    xvsa_error_unref(error);
    json_decref(answer);
    xv_etcd_read_failure(text, size, 400, &failure);
    check_text(failure.message);
    (void)xv_etcd_read_event(text, size, &answer, &failure);
    json_decref(answer);
    check_text(failure.message);
    free(text);
    return 0;
}
