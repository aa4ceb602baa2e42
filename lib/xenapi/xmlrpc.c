/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The decoder: recursive descent over libxml2's pull reader. Everything recursive counts its depth;
 * everything that grows counts what it holds.
 */
#include "xenapi/xmlrpc.h"

#include <libxml/parser.h>
#include <libxml/xmlreader.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/xmlrpc_filter.h"

#define COMPONENT         "xenapi"
#define DEPTH_MAX         32
#define TEXT_MAX_DEFAULT  (64u << 20)
#define VALUE_MAX_DEFAULT (4u << 20)
#define PIECE             16384
#define PARSE_OPTIONS     (XML_PARSE_NONET | XML_PARSE_HUGE | XML_PARSE_COMPACT)

struct decoder {
    const struct xv_xmlrpc_input *input;
    xmlTextReaderPtr reader;
    struct xv_filter filter;
    struct xv_buffer text; /* of the value under way */
    size_t text_max;
    size_t value_max;
    size_t values;
    char *ready; /* filtered bytes that libxml2 did not take yet */
    size_t ready_length;
    size_t ready_offset;
    bool ended;
    int failure_code;
    xvsa_error *failure; /* of the source or the filter */
    char problem[200];   /* libxml2's first complaint */
};

static pthread_once_t xml_once = PTHREAD_ONCE_INIT;

static int refill(struct decoder *decoder)
{
    char piece[PIECE];
    size_t length = 0;
    while (decoder->ready_offset == decoder->ready_length && !decoder->ended) {
        int rc = decoder->input->source(decoder->input->user, piece, sizeof piece, &length,
                                        &decoder->failure);
        decoder->ready_offset = 0;
        decoder->ready_length = 0;
        decoder->ended = rc == 0 && length == 0;
        if (rc == 0)
            rc = xv_filter_pass(&decoder->filter, piece, length, decoder->ready,
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
    struct decoder *decoder = user;
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
    struct decoder *decoder = user;
    if (decoder->problem[0] != '\0' || problem == NULL || problem->message == NULL)
        return;
    size_t length = strcspn(problem->message, "\r\n");
    if (length >= sizeof decoder->problem)
        length = sizeof decoder->problem - 1;
    memcpy(decoder->problem, problem->message, length);
    decoder->problem[length] = '\0';
}

static int malformed(struct decoder *decoder, const char *why, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                   "the pool's answer to %s is not valid XML-RPC: %s", decoder->input->what, why);
}

/* Goes to the next node; its type, 0 at the end of the document, or a negative code. */
static int next(struct decoder *decoder, xvsa_error **error)
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
        return malformed(decoder, decoder->problem[0] != '\0' ? decoder->problem : "cannot parse it",
                         error);
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

static bool is_named(struct decoder *decoder, const char *name)
{
    const xmlChar *found = xmlTextReaderConstName(decoder->reader);
    return found != NULL && strcmp((const char *)found, name) == 0;
}

/* Goes to the next element or end tag, past white space, comments and the prolog. */
static int next_tag(struct decoder *decoder, xvsa_error **error)
{
    for (;;) {
        int type = next(decoder, error);
        if (type <= 0 || type == XML_READER_TYPE_ELEMENT || type == XML_READER_TYPE_END_ELEMENT)
            return type;
        if (!is_space(type) && type != XML_READER_TYPE_COMMENT &&
            type != XML_READER_TYPE_PROCESSING_INSTRUCTION)
            return malformed(decoder, "text between tags", error);
    }
}

/* Goes to the start of the named element. */
static int expect(struct decoder *decoder, const char *name, xvsa_error **error)
{
    char why[80];
    int type = next_tag(decoder, error);
    if (type < 0)
        return type;
    if (type == XML_READER_TYPE_ELEMENT && is_named(decoder, name))
        return 0;
    snprintf(why, sizeof why, "<%s> is missing", name);
    return malformed(decoder, why, error);
}

static int expect_end(struct decoder *decoder, xvsa_error **error)
{
    int type = next_tag(decoder, error);
    if (type < 0)
        return type;
    return type == XML_READER_TYPE_END_ELEMENT ? 0 : malformed(decoder, "an end tag is missing", error);
}

/* Collects the text of the present element up to its end tag. */
static int read_text(struct decoder *decoder, xvsa_error **error)
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
            return malformed(decoder, "an element where only text may be", error);
        const xmlChar *text = xmlTextReaderConstValue(decoder->reader);
        int rc = text == NULL ? 0 : xv_buffer_add_text(&decoder->text, (const char *)text, error);
        if (rc != 0)
            return rc;
    }
}

static const char *text_of(const struct decoder *decoder)
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

static int make_int(struct decoder *decoder, struct xv_value **ret, xvsa_error **error)
{
    char *end = NULL;
    const char *text = text_of(decoder);
    long long number = strtoll(text, &end, 10);
    if (text[0] == '\0' || *end != '\0')
        return malformed(decoder, "an integer that is not one", error);
    return take(xv_value_new_int(number), ret, error);
}

static int make_bool(struct decoder *decoder, struct xv_value **ret, xvsa_error **error)
{
    const char *text = text_of(decoder);
    if (strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return malformed(decoder, "a boolean that is neither 0 nor 1", error);
    return take(xv_value_new_bool(text[0] == '1'), ret, error);
}

static int make_double(struct decoder *decoder, struct xv_value **ret, xvsa_error **error)
{
    double number = 0;
    if (!xv_value_parse_double(text_of(decoder), &number))
        return malformed(decoder, "a double that is not one", error);
    return take(xv_value_new_double(number), ret, error);
}

static int read_value(struct decoder *decoder, int depth, struct xv_value **ret, xvsa_error **error);

static int read_array(struct decoder *decoder, int depth, struct xv_value *array, xvsa_error **error)
{
    if (xmlTextReaderIsEmptyElement(decoder->reader) == 1)
        return malformed(decoder, "an array without data", error);
    int rc = expect(decoder, "data", error);
    bool empty = rc == 0 && xmlTextReaderIsEmptyElement(decoder->reader) == 1;
    while (rc == 0 && !empty) {
        int type = next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            break;
        struct xv_value *item = NULL;
        rc = read_value(decoder, depth + 1, &item, error);
        if (rc == 0 && !xv_value_add(array, item))
            rc = xv_fail_memory(error);
    }
    return rc != 0 ? rc : expect_end(decoder, error);
}

/* Reads name and value of a member up to its end tag. The caller frees both on success. */
static int read_member(struct decoder *decoder, int depth, char **ret_key, struct xv_value **ret,
                       xvsa_error **error)
{
    if (!is_named(decoder, "member"))
        return malformed(decoder, "something else than <member> in a struct", error);
    int rc = expect(decoder, "name", error);
    if (rc == 0)
        rc = read_text(decoder, error);
    if (rc != 0)
        return rc;
    char *key = strdup(text_of(decoder));
    if (key == NULL)
        return xv_fail_memory(error);
    rc = expect(decoder, "value", error);
    if (rc == 0)
        rc = read_value(decoder, depth + 1, ret, error);
    if (rc == 0) {
        rc = expect_end(decoder, error);
        if (rc != 0)
            xv_value_free(*ret);
    }
    if (rc != 0) {
        free(key);
        return rc;
    }
    *ret_key = key;
    return 0;
}

static int read_struct(struct decoder *decoder, int depth, struct xv_value *record,
                       xvsa_error **error)
{
    if (xmlTextReaderIsEmptyElement(decoder->reader) == 1)
        return 0;
    for (;;) {
        char *key = NULL;
        struct xv_value *value = NULL;
        int type = next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            return 0;
        int rc = read_member(decoder, depth, &key, &value, error);
        if (rc == 0 && !xv_value_append_member(record, key, value))
            rc = xv_fail_memory(error);
        if (rc != 0)
            return rc;
    }
}

static int read_tree(struct decoder *decoder, int depth, struct xv_value **ret, xvsa_error **error)
{
    bool is_array = is_named(decoder, "array");
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
static int read_typed(struct decoder *decoder, int depth, struct xv_value **ret, xvsa_error **error)
{
    static const struct {
        const char *name;
        int (*make)(struct decoder *decoder, struct xv_value **ret, xvsa_error **error);
    } numbers[] = {{"boolean", make_bool}, {"i4", make_int},  {"int", make_int},
                   {"i8", make_int},       {"double", make_double}};
    if (is_named(decoder, "struct") || is_named(decoder, "array"))
        return read_tree(decoder, depth, ret, error);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (is_named(decoder, numbers[i].name)) {
            int rc = read_text(decoder, error);
            return rc != 0 ? rc : numbers[i].make(decoder, ret, error);
        }
    }
    bool is_nil = is_named(decoder, "nil");
    bool is_time = is_named(decoder, "dateTime.iso8601");
    if (!is_nil && !is_time && !is_named(decoder, "string") && !is_named(decoder, "base64"))
        return malformed(decoder, "a value of an unknown type", error);
    int rc = read_text(decoder, error);
    if (rc != 0)
        return rc;
    if (is_nil)
        return take(xv_value_new_nil(), ret, error);
    return take(is_time ? xv_value_new_time(text_of(decoder)) : xv_value_new_string(text_of(decoder)),
                ret, error);
}

/* Reads from the start tag <value> up to its end tag. */
static int read_value(struct decoder *decoder, int depth, struct xv_value **ret, xvsa_error **error)
{
    if (!is_named(decoder, "value"))
        return malformed(decoder, "something else than <value>", error);
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
            int rc = text == NULL ? 0 : xv_buffer_add_text(&decoder->text, (const char *)text, error);
            if (rc != 0)
                return rc;
        } else if (type == XML_READER_TYPE_END_ELEMENT) {
            const char *text = decoder->text.length == 0 ? "" : decoder->text.data;
            return take(xv_value_new_string(text), ret, error);
        } else if (type == XML_READER_TYPE_ELEMENT && blank) {
            break;
        } else if (type != XML_READER_TYPE_COMMENT) {
            return malformed(decoder, "text and elements mixed in a value", error);
        }
    }
    int rc = read_typed(decoder, depth, ret, error);
    if (rc != 0)
        return rc;
    rc = expect_end(decoder, error);
    if (rc != 0)
        xv_value_free(*ret);
    return rc;
}

/* The Value of get_all_records, member by member. Begins at <value>, ends at its end tag. */
static int stream_value(struct decoder *decoder, xvsa_error **error)
{
    int rc = expect(decoder, "struct", error);
    bool empty = rc == 0 && xmlTextReaderIsEmptyElement(decoder->reader) == 1;
    while (rc == 0 && !empty) {
        char *key = NULL;
        struct xv_value *value = NULL;
        int type = next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            break;
        decoder->values = 0;
        rc = read_member(decoder, 1, &key, &value, error);
        if (rc == 0)
            rc = decoder->input->on_member(decoder->input->member_user, key, value, error);
        free(key);
    }
    return rc != 0 ? rc : expect_end(decoder, error);
}

struct envelope {
    struct xv_value *status;
    struct xv_value *value;
    struct xv_value *description;
    bool streamed;
};

static int read_envelope_member(struct decoder *decoder, struct envelope *envelope,
                                xvsa_error **error)
{
    int rc = is_named(decoder, "member") ? expect(decoder, "name", error)
                                         : malformed(decoder, "<member> is missing", error);
    if (rc == 0)
        rc = read_text(decoder, error);
    if (rc != 0)
        return rc;
    struct xv_value *other = NULL;
    struct xv_value **place = &other;
    bool is_value = strcmp(text_of(decoder), "Value") == 0;
    if (is_value)
        place = &envelope->value;
    else if (strcmp(text_of(decoder), "Status") == 0)
        place = &envelope->status;
    else if (strcmp(text_of(decoder), "ErrorDescription") == 0)
        place = &envelope->description;
    if (*place != NULL || (is_value && envelope->streamed))
        return malformed(decoder, "a member of the answer comes twice", error);
    rc = expect(decoder, "value", error);
    if (rc == 0 && is_value && decoder->input->on_member != NULL) {
        envelope->streamed = true;
        rc = stream_value(decoder, error);
    } else if (rc == 0) {
        rc = read_value(decoder, 1, place, error);
    }
    xv_value_free(other);
    return rc != 0 ? rc : expect_end(decoder, error);
}

static int read_fault(struct decoder *decoder, xvsa_error **error)
{
    struct xv_value *fault = NULL;
    int rc = expect(decoder, "value", error);
    if (rc == 0)
        rc = read_value(decoder, 0, &fault, error);
    if (rc != 0)
        return rc;
    rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "%s: XML-RPC fault %lld: %.300s",
                 decoder->input->what, (long long)xv_value_get_int(fault, "faultCode", 0),
                 xv_value_get_string(fault, "faultString", ""));
    xv_value_free(fault);
    return rc;
}

static int judge(struct decoder *decoder, struct envelope *envelope, struct xv_answer *ret,
                 xvsa_error **error)
{
    const char *status = xv_value_string(envelope->status, "");
    ret->success = strcmp(status, "Success") == 0;
    if (ret->success) {
        if (envelope->value == NULL && !envelope->streamed)
            return malformed(decoder, "a success without Value", error);
        ret->value = envelope->value;
        envelope->value = NULL;
        return 0;
    }
    if (strcmp(status, "Failure") != 0)
        return malformed(decoder, "neither success nor failure", error);
    if (xv_value_kind(envelope->description) != XV_VALUE_ARRAY ||
        xv_value_string(xv_value_at(envelope->description, 0), NULL) == NULL)
        return malformed(decoder, "a failure without ErrorDescription", error);
    ret->value = envelope->description;
    envelope->description = NULL;
    return 0;
}

static int read_envelope(struct decoder *decoder, struct envelope *envelope, xvsa_error **error)
{
    int rc = expect(decoder, "value", error);
    if (rc == 0)
        rc = expect(decoder, "struct", error);
    while (rc == 0) {
        int type = next_tag(decoder, error);
        if (type < 0)
            return type;
        if (type == XML_READER_TYPE_END_ELEMENT)
            break;
        rc = read_envelope_member(decoder, envelope, error);
    }
    /* </value>, </param>, </params>, </methodResponse>, and then nothing. */
    for (int i = 0; rc == 0 && i < 4; i++)
        rc = expect_end(decoder, error);
    if (rc != 0)
        return rc;
    int type = next_tag(decoder, error);
    return type <= 0 ? type : malformed(decoder, "something after the answer", error);
}

static int read_response(struct decoder *decoder, struct xv_answer *ret, xvsa_error **error)
{
    struct envelope envelope = {0};
    int rc = expect(decoder, "methodResponse", error);
    int type = rc != 0 ? rc : next_tag(decoder, error);
    if (type < 0)
        return type;
    if (is_named(decoder, "fault"))
        return read_fault(decoder, error);
    if (!is_named(decoder, "params"))
        return malformed(decoder, "<params> is missing", error);
    rc = expect(decoder, "param", error);
    if (rc == 0)
        rc = read_envelope(decoder, &envelope, error);
    if (rc == 0)
        rc = judge(decoder, &envelope, ret, error);
    xv_value_free(envelope.status);
    xv_value_free(envelope.value);
    xv_value_free(envelope.description);
    return rc;
}

static int open_decoder(struct decoder *decoder, const struct xv_xmlrpc_input *input,
                        xvsa_error **error)
{
    pthread_once(&xml_once, xmlInitParser);
    *decoder = (struct decoder){.input = input};
    decoder->text_max = input->text_max == 0 ? TEXT_MAX_DEFAULT : input->text_max;
    decoder->value_max = input->value_max == 0 ? VALUE_MAX_DEFAULT : input->value_max;
    xv_buffer_init(&decoder->text, decoder->text_max);
    xv_filter_init(&decoder->filter, decoder->text_max);
    decoder->ready = malloc(XV_FILTER_ROOM(PIECE));
    if (decoder->ready == NULL)
        return xv_fail_memory(error);
    /* The encoding is fixed, so that what the filter sees is what the parser sees. */
    decoder->reader = xmlReaderForIO(on_read, NULL, decoder, NULL, "UTF-8", PARSE_OPTIONS);
    if (decoder->reader == NULL) {
        free(decoder->ready);
        if (decoder->failure_code == 0)
            return xv_fail_memory(error);
        if (error != NULL)
            *error = decoder->failure;
        return decoder->failure_code;
    }
    xmlTextReaderSetStructuredErrorHandler(decoder->reader, on_problem, decoder);
    return 0;
}

static void close_decoder(struct decoder *decoder)
{
    xmlFreeTextReader(decoder->reader);
    xv_buffer_wipe(&decoder->text);
    xvsa_error_unref(decoder->failure);
    free(decoder->ready);
}

int xv_xmlrpc_decode(const struct xv_xmlrpc_input *input, struct xv_answer *ret, xvsa_error **error)
{
    struct decoder decoder;
    int rc = open_decoder(&decoder, input, error);
    if (rc != 0)
        return rc;
    *ret = (struct xv_answer){0};
    rc = read_response(&decoder, ret, error);
    close_decoder(&decoder);
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
        return take(xv_value_new_string(text), ret, error);
    struct span span = {text, strlen(text)};
    struct xv_xmlrpc_input input = {.source = read_span, .user = &span, .what = "a task's result"};
    struct decoder decoder;
    int rc = open_decoder(&decoder, &input, error);
    if (rc != 0)
        return rc;
    rc = expect(&decoder, "value", error);
    if (rc == 0)
        rc = read_value(&decoder, 0, ret, error);
    close_decoder(&decoder);
    return rc;
}
