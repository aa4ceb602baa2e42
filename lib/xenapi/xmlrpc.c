/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a pool answers: the envelope of status, value and error description.
 */
#include "xenapi/xmlrpc.h"

#include <stdlib.h>
#include <string.h>

#include "xenapi/errors.h"
#include "xenapi/xmlrpc_reader.h"

#define COMPONENT "xenapi"

/* The Value of get_all_records, member by member. Begins at <value>, ends at its end tag. */
static int stream_value(struct xv_decoder *decoder, xvsa_error **error)
{
    int rc = xv_decoder_expect(decoder, "struct", error);
    bool empty = rc == 0 && xmlTextReaderIsEmptyElement(decoder->reader) == 1;
    while (rc == 0 && !empty) {
        char *key = NULL;
        struct xv_value *value = NULL;
        int type = xv_decoder_next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            break;
        decoder->values = 0;
        rc = xv_decoder_read_member(decoder, 1, &key, &value, error);
        if (rc == 0)
            rc = decoder->input->on_member(decoder->input->member_user, key, value, error);
        free(key);
    }
    return rc != 0 ? rc : xv_decoder_expect_end(decoder, error);
}

struct envelope {
    struct xv_value *status;
    struct xv_value *value;
    struct xv_value *description;
    bool streamed;
};

static int read_envelope_member(struct xv_decoder *decoder, struct envelope *envelope,
                                xvsa_error **error)
{
    int rc = xv_decoder_is_named(decoder, "member")
                 ? xv_decoder_expect(decoder, "name", error)
                 : xv_decoder_malformed(decoder, "<member> is missing", error);
    if (rc == 0)
        rc = xv_decoder_read_text(decoder, error);
    if (rc != 0)
        return rc;
    struct xv_value *other = NULL;
    struct xv_value **place = &other;
    bool is_value = strcmp(xv_decoder_text(decoder), "Value") == 0;
    if (is_value)
        place = &envelope->value;
    else if (strcmp(xv_decoder_text(decoder), "Status") == 0)
        place = &envelope->status;
    else if (strcmp(xv_decoder_text(decoder), "ErrorDescription") == 0)
        place = &envelope->description;
    if (*place != NULL || (is_value && envelope->streamed))
        return xv_decoder_malformed(decoder, "a member of the answer comes twice", error);
    rc = xv_decoder_expect(decoder, "value", error);
    if (rc == 0 && is_value && decoder->input->on_member != NULL) {
        envelope->streamed = true;
        rc = stream_value(decoder, error);
    } else if (rc == 0) {
        rc = xv_decoder_read_value(decoder, 1, place, error);
    }
    xv_value_free(other);
    return rc != 0 ? rc : xv_decoder_expect_end(decoder, error);
}

static int read_fault(struct xv_decoder *decoder, xvsa_error **error)
{
    struct xv_value *fault = NULL;
    int rc = xv_decoder_expect(decoder, "value", error);
    if (rc == 0)
        rc = xv_decoder_read_value(decoder, 0, &fault, error);
    if (rc != 0)
        return rc;
    const char *text = xv_value_get_string(fault, "faultString", "");
    rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "%s: XML-RPC fault %lld: %.300s",
                 decoder->input->what, (long long)xv_value_get_int(fault, "faultCode", 0),
                 xv_errors_is_secret(text, decoder->input->secret) ? "(hidden)" : text);
    xv_value_free(fault);
    return rc;
}

static int judge(struct xv_decoder *decoder, struct envelope *envelope, struct xv_answer *ret,
                 xvsa_error **error)
{
    const char *status = xv_value_string(envelope->status, "");
    ret->success = strcmp(status, "Success") == 0;
    if (ret->success) {
        if (envelope->value == NULL && !envelope->streamed)
            return xv_decoder_malformed(decoder, "a success without Value", error);
        ret->value = envelope->value;
        envelope->value = NULL;
        return 0;
    }
    if (strcmp(status, "Failure") != 0)
        return xv_decoder_malformed(decoder, "neither success nor failure", error);
    if (xv_value_kind(envelope->description) != XV_VALUE_ARRAY ||
        xv_value_string(xv_value_at(envelope->description, 0), NULL) == NULL)
        return xv_decoder_malformed(decoder, "a failure without ErrorDescription", error);
    ret->value = envelope->description;
    envelope->description = NULL;
    return 0;
}

static int read_envelope(struct xv_decoder *decoder, struct envelope *envelope, xvsa_error **error)
{
    int rc = xv_decoder_expect(decoder, "value", error);
    if (rc == 0)
        rc = xv_decoder_expect(decoder, "struct", error);
    while (rc == 0) {
        int type = xv_decoder_next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            break;
        rc = read_envelope_member(decoder, envelope, error);
    }
    /* </value>, </param>, </params>, </methodResponse>, and then nothing. */
    for (int i = 0; rc == 0 && i < 4; i++)
        rc = xv_decoder_expect_end(decoder, error);
    if (rc != 0)
        return rc;
    int type = xv_decoder_next_tag(decoder, error);
    return type <= 0 ? type : xv_decoder_malformed(decoder, "something after the answer", error);
}

static int read_response(struct xv_decoder *decoder, struct xv_answer *ret, xvsa_error **error)
{
    struct envelope envelope = {0};
    int rc = xv_decoder_expect(decoder, "methodResponse", error);
    int type = rc != 0 ? rc : xv_decoder_next_tag(decoder, error);
    if (type < 0)
        return type;
    if (xv_decoder_is_named(decoder, "fault"))
        return read_fault(decoder, error);
    if (!xv_decoder_is_named(decoder, "params"))
        return xv_decoder_malformed(decoder, "<params> is missing", error);
    rc = xv_decoder_expect(decoder, "param", error);
    if (rc == 0)
        rc = read_envelope(decoder, &envelope, error);
    if (rc == 0)
        rc = judge(decoder, &envelope, ret, error);
    xv_value_free(envelope.status);
    xv_value_free(envelope.value);
    xv_value_free(envelope.description);
    return rc;
}

int xv_xmlrpc_decode(const struct xv_xmlrpc_input *input, struct xv_answer *ret, xvsa_error **error)
{
    struct xv_decoder decoder;
    int rc = xv_decoder_open(&decoder, input, error);
    if (rc != 0)
        return rc;
    *ret = (struct xv_answer){0};
    rc = read_response(&decoder, ret, error);
    xv_decoder_close(&decoder);
    return rc;
}

struct span {
    const char *data;
    size_t left;
};

static int read_span(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    struct span *span = user;
    (void)error;
    *ret_length = room < span->left ? room : span->left;
    memcpy(data, span->data, *ret_length);
    span->data += *ret_length;
    span->left -= *ret_length;
    return 0;
}

int xv_xmlrpc_decode_result(const char *text, struct xv_value **ret, xvsa_error **error)
{
    if (strncmp(text, "<value", 6) != 0)
        return (*ret = xv_value_new_string(text)) == NULL ? xv_fail_memory(error) : 0;
    struct span span = {text, strlen(text)};
    struct xv_xmlrpc_input input = {.source = read_span, .user = &span, .what = "a task's result"};
    struct xv_decoder decoder;
    int rc = xv_decoder_open(&decoder, &input, error);
    if (rc != 0)
        return rc;
    rc = xv_decoder_expect(&decoder, "value", error);
    if (rc == 0)
        rc = xv_decoder_read_value(&decoder, 0, ret, error);
    xv_decoder_close(&decoder);
    return rc;
}
