/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/progress.h"

#include <stdlib.h>

#include "repo/fault.h"

#define VERSION       1
#define FIXED         88
#define REF_BYTES     48
#define NO_INDEX      0xffffffffu
#define TEXT_MAX      4096u
#define FACTS_MAX     (1u << 20)
#define RUN_BYTES_MAX 10 /* of one run: seven bits in each byte */

void xv_progress_writer_free(struct xv_progress_writer *writer)
{
    free(writer->packs);
    free(writer->refs);
    free(writer->runs);
    *writer = (struct xv_progress_writer){0};
}

/* Room for count elements of size bytes; false without memory. */
static bool reserve(uint8_t **data, uint32_t *capacity, uint32_t count, uint32_t size)
{
    if (count <= *capacity)
        return true;
    uint32_t grown = *capacity == 0 ? 64 : *capacity;
    while (grown < count)
        grown *= 2;
    uint8_t *copy = realloc(*data, (size_t)grown * size);
    if (copy == NULL)
        return false;
    *data = copy;
    *capacity = grown;
    return true;
}

static int close_run(struct xv_progress_writer *writer, xvsa_error **error)
{
    if (writer->length == 0)
        return 0;
    if (!reserve(&writer->runs, &writer->run_capacity, writer->run_bytes + RUN_BYTES_MAX, 1))
        return xv_fail_memory(error);
    uint64_t value = writer->length << 2 | writer->kind;
    while (value >= 0x80) {
        writer->runs[writer->run_bytes++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    writer->runs[writer->run_bytes++] = (uint8_t)value;
    writer->length = 0;
    return 0;
}

int xv_progress_add_run(struct xv_progress_writer *writer, uint8_t kind, uint64_t count,
                        xvsa_error **error)
{
    int rc = count > 0 && writer->kind != kind ? close_run(writer, error) : 0;
    if (count > 0)
        writer->kind = kind;
    writer->length += count;
    return rc;
}

/* Chunks of a frame follow each other mostly, so the pack wanted is one of the last. */
static int pack_place(struct xv_progress_writer *writer, const uint8_t *pack, uint32_t *ret,
                      xvsa_error **error)
{
    for (uint32_t i = writer->pack_count; i-- > 0;) {
        if (memcmp(writer->packs + (size_t)i * XV_HANDLE_BYTES, pack, XV_HANDLE_BYTES) == 0) {
            *ret = i;
            return 0;
        }
    }
    if (!reserve(&writer->packs, &writer->pack_capacity, writer->pack_count + 1, XV_HANDLE_BYTES))
        return xv_fail_memory(error);
    memcpy(writer->packs + (size_t)writer->pack_count * XV_HANDLE_BYTES, pack, XV_HANDLE_BYTES);
    *ret = writer->pack_count++;
    return 0;
}

int xv_progress_add_ref(struct xv_progress_writer *writer, const struct xv_ref *ref,
                        xvsa_error **error)
{
    uint32_t pack = 0;
    int rc = pack_place(writer, ref->at.pack, &pack, error);
    if (rc != 0)
        return rc;
    if (!reserve(&writer->refs, &writer->ref_capacity, writer->ref_count + 1, REF_BYTES))
        return xv_fail_memory(error);
    uint8_t *out = writer->refs + (size_t)writer->ref_count * REF_BYTES;
    memcpy(out, ref->id, XV_ID_BYTES);
    xv_put32(out + 32, pack);
    xv_put32(out + 36, ref->at.offset);
    xv_put32(out + 40, ref->at.length);
    xv_put16(out + 44, ref->at.slot);
    xv_put16(out + 46, 0);
    writer->ref_count++;
    return 0;
}

static uint8_t *append(uint8_t *at, const void *data, size_t length)
{
    if (length > 0)
        memcpy(at, data, length);
    return at + length;
}

int xv_progress_encode(const struct xv_progress *head, struct xv_progress_writer *writer,
                       uint8_t **ret, size_t *ret_length, xvsa_error **error)
{
    if (head->key_length > TEXT_MAX || head->device_length > TEXT_MAX ||
        head->facts_length > FACTS_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, "repo", "the texts about disk %.64s are too long",
                       head->key);
    int rc = close_run(writer, error);
    if (rc != 0)
        return rc;
    size_t length = FIXED + (size_t)head->key_length + head->device_length + head->facts_length +
                    (size_t)writer->pack_count * XV_HANDLE_BYTES +
                    (size_t)writer->ref_count * REF_BYTES + writer->run_bytes;
    uint8_t *body = calloc(1, length);
    if (body == NULL)
        return xv_fail_memory(error);
    body[0] = VERSION;
    body[1] = head->content;
    xv_put32(body + 4, head->base_index < 0 ? NO_INDEX : (uint32_t)head->base_index);
    memcpy(body + 8, head->session, XV_HANDLE_BYTES);
    memcpy(body + 24, head->base, XV_HANDLE_BYTES);
    xv_put64(body + 40, head->size);
    xv_put64(body + 48, head->first);
    xv_put64(body + 56, head->end);
    xv_put32(body + 64, head->key_length);
    xv_put32(body + 68, head->device_length);
    xv_put32(body + 72, head->facts_length);
    xv_put32(body + 76, writer->pack_count);
    xv_put32(body + 80, writer->ref_count);
    xv_put32(body + 84, writer->run_bytes);
    uint8_t *at = append(body + FIXED, head->key, head->key_length);
    at = append(at, head->device, head->device_length);
    at = append(at, head->facts, head->facts_length);
    at = append(at, writer->packs, (size_t)writer->pack_count * XV_HANDLE_BYTES);
    at = append(at, writer->refs, (size_t)writer->ref_count * REF_BYTES);
    append(at, writer->runs, writer->run_bytes);
    *ret = body;
    *ret_length = length;
    return 0;
}

void xv_progress_begin(struct xv_progress_run *run, const struct xv_progress *progress)
{
    *run = (struct xv_progress_run){.progress = progress, .next = progress->first};
}

/* Reads the number at the place of a run; 0 when there is none that fits into 64 bits. */
static uint64_t read_run(struct xv_progress_run *run)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63 && run->at < run->progress->run_bytes; shift += 7) {
        uint8_t byte = run->progress->runs[run->at++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return value;
    }
    return 0;
}

bool xv_progress_next(struct xv_progress_run *run)
{
    if (run->count > 0 && run->kind == XV_KIND_DATA && run->progress->content == XV_PROGRESS_DONE)
        run->ref += (uint32_t)run->count;
    if (run->at == run->progress->run_bytes)
        return false;
    uint64_t value = read_run(run);
    run->kind = value & 3;
    run->count = value >> 2;
    run->first = run->next;
    run->next += run->count;
    return true;
}

uint32_t xv_progress_pack(const struct xv_progress_run *run, uint64_t index)
{
    return xv_get32(run->progress->refs + (run->ref + (size_t)index) * REF_BYTES + 32);
}

void xv_progress_ref(const struct xv_progress_run *run, uint64_t index, struct xv_ref *ret)
{
    const uint8_t *at = run->progress->refs + (run->ref + (size_t)index) * REF_BYTES;
    memcpy(ret->id, at, XV_ID_BYTES);
    memcpy(ret->at.pack, run->progress->packs + (size_t)xv_get32(at + 32) * XV_HANDLE_BYTES,
           XV_HANDLE_BYTES);
    ret->at.offset = xv_get32(at + 36);
    ret->at.length = xv_get32(at + 40);
    ret->at.slot = xv_get16(at + 44);
}

static int decode_head(const char *object, const uint8_t *body, size_t length,
                       struct xv_progress *ret, xvsa_error **error)
{
    if (length < FIXED)
        return xv_fault(error, object, "it is cut off");
    if (body[0] != VERSION)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "object '%s' has version %u, which this library does not know", object,
                       body[0]);
    uint32_t base_index = xv_get32(body + 4);
    *ret = (struct xv_progress){.content = body[1],
                                .base_index = base_index == NO_INDEX ? -1 : (int64_t)base_index,
                                .size = xv_get64(body + 40),
                                .first = xv_get64(body + 48),
                                .end = xv_get64(body + 56),
                                .key_length = xv_get32(body + 64),
                                .device_length = xv_get32(body + 68),
                                .facts_length = xv_get32(body + 72),
                                .pack_count = xv_get32(body + 76),
                                .ref_count = xv_get32(body + 80),
                                .run_bytes = xv_get32(body + 84)};
    memcpy(ret->session, body + 8, XV_HANDLE_BYTES);
    memcpy(ret->base, body + 24, XV_HANDLE_BYTES);
    uint64_t wanted = FIXED + (uint64_t)ret->key_length + ret->device_length + ret->facts_length +
                      (uint64_t)ret->pack_count * XV_HANDLE_BYTES +
                      (uint64_t)ret->ref_count * REF_BYTES + ret->run_bytes;
    if (wanted != length || ret->key_length > TEXT_MAX || ret->device_length > TEXT_MAX ||
        ret->facts_length > FACTS_MAX)
        return xv_fault(error, object, "its parts do not fit together");
    ret->key = (const char *)body + FIXED;
    ret->device = ret->key + ret->key_length;
    ret->facts = ret->device + ret->device_length;
    ret->packs = (const uint8_t *)ret->facts + ret->facts_length;
    ret->refs = ret->packs + (size_t)ret->pack_count * XV_HANDLE_BYTES;
    ret->runs = ret->refs + (size_t)ret->ref_count * REF_BYTES;
    return 0;
}

static int check_runs(const char *object, const struct xv_progress *progress, xvsa_error **error)
{
    struct xv_progress_run run;
    uint64_t refs = 0;
    xv_progress_begin(&run, progress);
    while (xv_progress_next(&run)) {
        if (run.count == 0 || run.count > progress->end - run.first)
            return xv_fault(error, object, "a run in it is longer than what it covers, or empty");
        if (progress->content == XV_PROGRESS_DONE && run.kind == XV_KIND_DATA)
            refs += run.count;
        if (refs > progress->ref_count)
            return xv_fault(error, object, "it lacks places of chunks");
    }
    if (run.next != progress->end || refs != progress->ref_count)
        return xv_fault(error, object, "its runs do not cover what they should");
    for (uint32_t i = 0; i < progress->ref_count; i++) {
        if (xv_get32(progress->refs + (size_t)i * REF_BYTES + 32) >= progress->pack_count)
            return xv_fault(error, object, "it names a pack that it does not list");
    }
    return 0;
}

int xv_progress_decode(const char *object, const uint8_t *body, size_t length, uint32_t chunk_size,
                       struct xv_progress *ret, xvsa_error **error)
{
    int rc = decode_head(object, body, length, ret, error);
    if (rc != 0)
        return rc;
    uint64_t chunks = ret->size / chunk_size + (ret->size % chunk_size != 0);
    size_t texts = (size_t)ret->key_length + ret->device_length + ret->facts_length;
    if (ret->content != XV_PROGRESS_MAP && ret->content != XV_PROGRESS_DONE)
        return xv_fault(error, object, "its content is of an unknown kind");
    if (ret->size > INT64_MAX || ret->first > ret->end || ret->end > chunks)
        return xv_fault(error, object, "it covers more than its disk");
    if (memchr(ret->key, 0, texts) != NULL)
        return xv_fault(error, object, "a text in it has a zero byte");
    return check_runs(object, ret, error);
}
