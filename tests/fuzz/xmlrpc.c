/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The XML-RPC reader. The first byte chooses how: its lowest bit streams the members, the next reads a
 * task's result, the highest takes members out, the others are the size of the pieces in which the input
 * arrives.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/xmlrpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
    size_t step;
};

static int feed(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    struct input *input = user;
    (void)error;
    size_t length = input->left < room ? input->left : room;
    length = input->step > 0 && length > input->step ? input->step : length;
    if (length > 0)
        memcpy(data, input->data, length);
    input->data += length;
    input->left -= length;
    *ret_length = length;
    return 0;
}

/* Touches all of a value, and sends it back where that is possible. */
static void use(struct xv_value *value)
{
    struct xv_buffer text;
    struct xv_value *params = xv_value_new_array();
    struct xv_value *copy = xv_value_copy(value);
    char *json = xv_value_to_json(value);
    xv_value_time_ms(value);
    if (json != NULL && copy != NULL) {
        struct xv_value *back = NULL;
        if (xv_value_from_json(json, &back, NULL) == 0)
            xv_value_free(back);
    }
    xv_buffer_init(&text, XV_XMLRPC_REQUEST_MAX);
    if (xv_value_add(params, copy) && xv_xmlrpc_encode(&text, "x.y", NULL, params, NULL) != 0)
        text.length = 0;
    xv_buffer_free(&text);
    xv_value_free(params);
    free(json);
}

static int take(void *user, const char *key, struct xv_value *value, xvsa_error **error)
{
    (void)user;
    (void)error;
    use(value);
    int stop = strcmp(key, "stop") == 0 ? XVSA_ERR_STATE : 0;
    xv_value_free(value);
    return stop;
}

static void read_result(const uint8_t *data, size_t size)
{
    struct xv_value *value = NULL;
    char *text = calloc(1, size + 1);
    if (text == NULL)
        return;
    if (size > 0)
        memcpy(text, data, size);
    if (xv_xmlrpc_decode_result(text, &value, NULL) == 0)
        use(value);
    xv_value_free(value);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if ((data[0] & 2) != 0) {
        read_result(data + 1, size - 1);
        return 0;
    }
    static const char *const wanted[] = {"n", "uuid", NULL};
    struct input input = {data + 1, size - 1, (data[0] & 0x7f) >> 2};
    struct xv_xmlrpc_input setup = {.source = feed,
                                    .user = &input,
                                    .what = "fuzz",
                                    .text_max = 4096,
                                    .value_max = 1000,
                                    .on_member = (data[0] & 1) != 0 ? take : NULL,
                                    .wanted = (data[0] & 0x80) != 0 ? wanted : NULL};
    struct xv_answer answer = {0};
    xvsa_error *error = NULL;
    if (xv_xmlrpc_decode(&setup, &answer, &error) == 0) {
        if (answer.value != NULL)
            use(answer.value);
        xv_value_free(answer.value);
    }
    xvsa_error_unref(error);
    return 0;
}
