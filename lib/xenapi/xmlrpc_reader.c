/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/xmlrpc_reader.h"

#include <libxml/parser.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT         "xenapi"
#define DEPTH_MAX         32
#define TEXT_MAX_DEFAULT  (64u << 20)
#define VALUE_MAX_DEFAULT (4u << 20)
#define PARSE_OPTIONS     (XML_PARSE_NONET | XML_PARSE_HUGE | XML_PARSE_COMPACT)

static pthread_once_t xml_once = PTHREAD_ONCE_INIT;

/* Brings the next bytes to piece. *ret_length may be 0 before the end, when all were taken out. */
static int fetch(struct xv_decoder *decoder, size_t *ret_length)
{
    size_t length = 0;
    char *place = decoder->prune == NULL ? decoder->piece : xv_prune_room(decoder->prune);
    int rc = decoder->input->source(decoder->input->user, place, XV_PRUNE_PIECE, &length,
                                    &decoder->failure);
    decoder->ended = rc == 0 && length == 0;
    if (rc == 0 && decoder->prune != NULL)
        length = xv_prune_pass(decoder->prune, length, decoder->piece);
    *ret_length = length;
    return rc;
}

static int refill(struct xv_decoder *decoder)
{
    while (decoder->ready_offset == decoder->ready_length && !decoder->ended) {
        size_t length = 0;
        int rc = fetch(decoder, &length);
        decoder->ready_offset = 0;
        decoder->ready_length = 0;
        if (rc == 0)
            rc = xv_filter_pass(&decoder->filter, decoder->piece, length, decoder->ready,
                                &decoder->ready_length, &decoder->failure);
        if (rc != 0) {
            decoder->failure_code = rc;
            return -1;
        }
    }
    return 0;
}

static int on_read(void *user, char *data, int room)
{
    struct xv_decoder *decoder = user;
    if (decoder->failure_code != 0 || refill(decoder) != 0)
        return -1;
    size_t length = decoder->ready_length - decoder->ready_offset;
    if (length > (size_t)room)
        length = (size_t)room;
    memcpy(data, decoder->ready + decoder->ready_offset, length);
    decoder->ready_offset += length;
    return (int)length;
}

static void on_problem(void *user, xmlErrorPtr problem)
{
    struct xv_decoder *decoder = user;
    if (decoder->problem[0] != '\0' || problem == NULL || problem->message == NULL)
        return;
    size_t length = strcspn(problem->message, "\r\n");
    if (length >= sizeof decoder->problem)
        length = sizeof decoder->problem - 1;
    memcpy(decoder->problem, problem->message, length);
    decoder->problem[length] = '\0';
}

int xv_decoder_malformed(struct xv_decoder *decoder, const char *why, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                   "the pool's answer to %s is not valid XML-RPC: %s", decoder->input->what, why);
}

/* Goes to the next node; its type, 0 at the end of the document, or a negative code. */
static int next(struct xv_decoder *decoder, xvsa_error **error)
{
    int rc = xmlTextReaderRead(decoder->reader);
    if (decoder->failure_code != 0) {
        int code = decoder->failure_code;
        if (error != NULL)
            *error = decoder->failure;
        else
            xvsa_error_unref(decoder->failure);
        decoder->failure = NULL;
        return xv_error_wrap(error, code, COMPONENT, "cannot read the pool's answer to %s",
                             decoder->input->what);
    }
    if (rc < 0 || decoder->problem[0] != '\0')
        return xv_decoder_malformed(
            decoder, decoder->problem[0] != '\0' ? decoder->problem : "cannot parse it", error);
    if (rc == 0)
        return 0;
    return xmlTextReaderNodeType(decoder->reader);
}

static bool is_space(int type)
{
    return type == XML_READER_TYPE_SIGNIFICANT_WHITESPACE || type == XML_READER_TYPE_WHITESPACE;
}

static bool is_text(int type)
{
    return type == XML_READER_TYPE_TEXT || type == XML_READER_TYPE_CDATA || is_space(type);
}

bool xv_decoder_is_named(struct xv_decoder *decoder, const char *name)
{
    const xmlChar *found = xmlTextReaderConstName(decoder->reader);
    return found != NULL && strcmp((const char *)found, name) == 0;
}

int xv_decoder_next_tag(struct xv_decoder *decoder, xvsa_error **error)
{
    for (;;) {
        int type = next(decoder, error);
        if (type <= 0 || type == XML_READER_TYPE_ELEMENT || type == XML_READER_TYPE_END_ELEMENT)
            return type;
        if (!is_space(type) && type != XML_READER_TYPE_COMMENT &&
            type != XML_READER_TYPE_PROCESSING_INSTRUCTION)
            return xv_decoder_malformed(decoder, "text between tags", error);
    }
}

int xv_decoder_expect(struct xv_decoder *decoder, const char *name, xvsa_error **error)
{
    char why[80];
    int type = xv_decoder_next_tag(decoder, error);
    if (type < 0)
        return type;
    if (type == XML_READER_TYPE_ELEMENT && xv_decoder_is_named(decoder, name))
        return 0;
    snprintf(why, sizeof why, "<%s> is missing", name);
    return xv_decoder_malformed(decoder, why, error);
}

int xv_decoder_expect_end(struct xv_decoder *decoder, xvsa_error **error)
{
    int type = xv_decoder_next_tag(decoder, error);
    if (type < 0)
        return type;
    return type == XML_READER_TYPE_END_ELEMENT
               ? 0
               : xv_decoder_malformed(decoder, "an end tag is missing", error);
}

int xv_decoder_read_text(struct xv_decoder *decoder, xvsa_error **error)
{
    decoder->text.length = 0;
    if (decoder->text.data != NULL)
        decoder->text.data[0] = '\0';
    if (xmlTextReaderIsEmptyElement(decoder->reader) == 1)
        return 0;
    for (;;) {
        int type = next(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            return 0;
        if (type == XML_READER_TYPE_COMMENT)
            continue;
        if (!is_text(type))
            return xv_decoder_malformed(decoder, "an element where only text may be", error);
        const xmlChar *text = xmlTextReaderConstValue(decoder->reader);
        int rc = text == NULL ? 0 : xv_buffer_add_text(&decoder->text, (const char *)text, error);
        if (rc != 0)
            return rc;
    }
}

const char *xv_decoder_text(const struct xv_decoder *decoder)
{
    return decoder->text.data == NULL ? "" : decoder->text.data;
}

static int take(struct xv_value *value, struct xv_value **ret, xvsa_error **error)
{
    if (value == NULL)
        return xv_fail_memory(error);
    *ret = value;
    return 0;
}

static int make_int(struct xv_decoder *decoder, struct xv_value **ret, xvsa_error **error)
{
    char *end = NULL;
    const char *text = xv_decoder_text(decoder);
    long long number = strtoll(text, &end, 10);
    if (text[0] == '\0' || *end != '\0')
        return xv_decoder_malformed(decoder, "an integer that is not one", error);
    return take(xv_value_new_int(number), ret, error);
}

static int make_bool(struct xv_decoder *decoder, struct xv_value **ret, xvsa_error **error)
{
    const char *text = xv_decoder_text(decoder);
    if (strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return xv_decoder_malformed(decoder, "a boolean that is neither 0 nor 1", error);
    return take(xv_value_new_bool(text[0] == '1'), ret, error);
}

static int make_double(struct xv_decoder *decoder, struct xv_value **ret, xvsa_error **error)
{
    double number = 0;
    if (!xv_value_parse_double(xv_decoder_text(decoder), &number))
        return xv_decoder_malformed(decoder, "a double that is not one", error);
    return take(xv_value_new_double(number), ret, error);
}

static int read_array(struct xv_decoder *decoder, int depth, struct xv_value *array,
                      xvsa_error **error)
{
    if (xmlTextReaderIsEmptyElement(decoder->reader) == 1)
        return xv_decoder_malformed(decoder, "an array without data", error);
    int rc = xv_decoder_expect(decoder, "data", error);
    bool empty = rc == 0 && xmlTextReaderIsEmptyElement(decoder->reader) == 1;
    while (rc == 0 && !empty) {
        int type = xv_decoder_next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            break;
        struct xv_value *item = NULL;
        rc = xv_decoder_read_value(decoder, depth + 1, &item, error);
        if (rc == 0 && !xv_value_add(array, item))
            rc = xv_fail_memory(error);
    }
    return rc != 0 ? rc : xv_decoder_expect_end(decoder, error);
}

int xv_decoder_read_member(struct xv_decoder *decoder, int depth, char **ret_key,
                           struct xv_value **ret, xvsa_error **error)
{
    if (!xv_decoder_is_named(decoder, "member"))
        return xv_decoder_malformed(decoder, "something else than <member> in a struct", error);
    int rc = xv_decoder_expect(decoder, "name", error);
    if (rc == 0)
        rc = xv_decoder_read_text(decoder, error);
    if (rc != 0)
        return rc;
    char *key = strdup(xv_decoder_text(decoder));
    if (key == NULL)
        return xv_fail_memory(error);
    rc = xv_decoder_expect(decoder, "value", error);
    if (rc == 0)
        rc = xv_decoder_read_value(decoder, depth + 1, ret, error);
    if (rc == 0) {
        rc = xv_decoder_expect_end(decoder, error);
        if (rc != 0) {
            xv_value_free(*ret);
            *ret = NULL;
        }
    }
    if (rc != 0) {
        free(key);
        return rc;
    }
    *ret_key = key;
    return 0;
}

static int read_struct(struct xv_decoder *decoder, int depth, struct xv_value *record,
                       xvsa_error **error)
{
    if (xmlTextReaderIsEmptyElement(decoder->reader) == 1)
        return 0;
    for (;;) {
        char *key = NULL;
        struct xv_value *value = NULL;
        int type = xv_decoder_next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            return 0;
        int rc = xv_decoder_read_member(decoder, depth, &key, &value, error);
        if (rc == 0 && !xv_value_append_member(record, key, value))
            rc = xv_fail_memory(error);
        if (rc != 0)
            return rc;
    }
}

static int read_tree(struct xv_decoder *decoder, int depth, struct xv_value **ret,
                     xvsa_error **error)
{
    bool is_array = xv_decoder_is_named(decoder, "array");
    struct xv_value *tree = is_array ? xv_value_new_array() : xv_value_new_struct();
    if (tree == NULL)
        return xv_fail_memory(error);
    int rc = is_array ? read_array(decoder, depth, tree, error)
                      : read_struct(decoder, depth, tree, error);
    if (rc != 0) {
        xv_value_free(tree);
        return rc;
    }
    *ret = tree;
    return 0;
}

/* Reads the typed element within <value> up to its end tag. */
static int read_typed(struct xv_decoder *decoder, int depth, struct xv_value **ret,
                      xvsa_error **error)
{
    static const struct {
        const char *name;
        int (*make)(struct xv_decoder *decoder, struct xv_value **ret, xvsa_error **error);
    } numbers[] = {{"boolean", make_bool},
                   {"i4", make_int},
                   {"int", make_int},
                   {"i8", make_int},
                   {"double", make_double}};
    if (xv_decoder_is_named(decoder, "struct") || xv_decoder_is_named(decoder, "array"))
        return read_tree(decoder, depth, ret, error);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (xv_decoder_is_named(decoder, numbers[i].name)) {
            int rc = xv_decoder_read_text(decoder, error);
            return rc != 0 ? rc : numbers[i].make(decoder, ret, error);
        }
    }
    bool is_nil = xv_decoder_is_named(decoder, "nil");
    bool is_time = xv_decoder_is_named(decoder, "dateTime.iso8601");
    if (!is_nil && !is_time && !xv_decoder_is_named(decoder, "string") &&
        !xv_decoder_is_named(decoder, "base64"))
        return xv_decoder_malformed(decoder, "a value of an unknown type", error);
    int rc = xv_decoder_read_text(decoder, error);
    if (rc != 0)
        return rc;
    if (is_nil)
        return take(xv_value_new_nil(), ret, error);
    return take(is_time ? xv_value_new_time(xv_decoder_text(decoder))
                        : xv_value_new_string(xv_decoder_text(decoder)),
                ret, error);
}

int xv_decoder_read_value(struct xv_decoder *decoder, int depth, struct xv_value **ret,
                          xvsa_error **error)
{
    if (!xv_decoder_is_named(decoder, "value"))
        return xv_decoder_malformed(decoder, "something else than <value>", error);
    if (depth > DEPTH_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "the pool's answer to %s is nested more than %d levels deep",
                       decoder->input->what, DEPTH_MAX);
    if (decoder->values++ >= decoder->value_max)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "the pool's answer to %s holds more than %zu values", decoder->input->what,
                       decoder->value_max);
    if (xmlTextReaderIsEmptyElement(decoder->reader) == 1)
        return take(xv_value_new_string(""), ret, error);
    decoder->text.length = 0;
    bool blank = true;
    for (;;) {
        int type = next(decoder, error);
        if (type < 0)
            return type;
        if (is_text(type)) {
            const xmlChar *text = xmlTextReaderConstValue(decoder->reader);
            blank = blank && is_space(type);
            int rc =
                text == NULL ? 0 : xv_buffer_add_text(&decoder->text, (const char *)text, error);
            if (rc != 0)
                return rc;
        } else if (type == XML_READER_TYPE_END_ELEMENT) {
            const char *text = decoder->text.length == 0 ? "" : decoder->text.data;
            return take(xv_value_new_string(text), ret, error);
        } else if (type == XML_READER_TYPE_ELEMENT && blank) {
            break;
        } else if (type != XML_READER_TYPE_COMMENT) {
            return xv_decoder_malformed(decoder, "text and elements mixed in a value", error);
        }
    }
    int rc = read_typed(decoder, depth, ret, error);
    if (rc != 0)
        return rc;
    rc = xv_decoder_expect_end(decoder, error);
    if (rc != 0) {
        xv_value_free(*ret);
        *ret = NULL;
    }
    return rc;
}

static bool make_buffers(struct xv_decoder *decoder)
{
    bool prunes = decoder->input->on_member != NULL && decoder->input->wanted != NULL;
    size_t room = prunes ? sizeof decoder->prune->data : XV_PRUNE_PIECE;
    decoder->piece = malloc(room);
    decoder->ready = malloc(XV_FILTER_ROOM(room));
    if (prunes)
        decoder->prune = malloc(sizeof *decoder->prune);
    if (decoder->prune != NULL)
        xv_prune_init(decoder->prune, decoder->input->wanted);
    return decoder->piece != NULL && decoder->ready != NULL && (decoder->prune != NULL || !prunes);
}

static void free_buffers(struct xv_decoder *decoder)
{
    free(decoder->piece);
    free(decoder->ready);
    free(decoder->prune);
}

int xv_decoder_open(struct xv_decoder *decoder, const struct xv_xmlrpc_input *input,
                    xvsa_error **error)
{
    pthread_once(&xml_once, xmlInitParser);
    *decoder = (struct xv_decoder){.input = input};
    decoder->text_max = input->text_max == 0 ? TEXT_MAX_DEFAULT : input->text_max;
    decoder->value_max = input->value_max == 0 ? VALUE_MAX_DEFAULT : input->value_max;
    xv_buffer_init(&decoder->text, decoder->text_max);
    xv_filter_init(&decoder->filter, decoder->text_max);
    if (!make_buffers(decoder)) {
        free_buffers(decoder);
        return xv_fail_memory(error);
    }
    /* The encoding is fixed, so that what the filter sees is what the parser sees. */
    decoder->reader = xmlReaderForIO(on_read, NULL, decoder, NULL, "UTF-8", PARSE_OPTIONS);
    if (decoder->reader == NULL) {
        free_buffers(decoder);
        if (decoder->failure_code == 0)
            return xv_fail_memory(error);
        if (error != NULL)
            *error = decoder->failure;
        return decoder->failure_code;
    }
    xmlTextReaderSetStructuredErrorHandler(decoder->reader, on_problem, decoder);
    return 0;
}

void xv_decoder_close(struct xv_decoder *decoder)
{
    xmlFreeTextReader(decoder->reader);
    xv_buffer_wipe(&decoder->text);
    xvsa_error_unref(decoder->failure);
    free_buffers(decoder);
}
