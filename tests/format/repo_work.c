/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Commands of format-repo about works:
 *
 *     work SESSION KEY TOKEN POINT|- WORK backup|part
 *     map SESSION DISK SIZE BASE-INDEX|- READ-OFFSET READ-LENGTH KEEP-OFFSET KEEP-LENGTH
 *     adopt SESSION                        answers with the bytes that its disk has then
 *     park SESSION
 *     done WORK DISK                       answers with [[offset, length], ...]
 *     read-map WORK DISK                   answers with the map
 *     works                                answers with {work: [object, ...]}
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "repo/internal.h"
#include "repo/work.h"
#include "repo_commands.h"

int do_work(char **words)
{
    return begin(words, words[4],
                 strcmp(words[5], "part") == 0 ? XV_SESSION_PART : XV_SESSION_BACKUP);
}

int do_map(char **words)
{
    xvsa_error *error = NULL;
    struct xv_extents sets[2];
    int rc = 0;
    for (int i = 0; i < 2; i++) {
        xv_extents_init(&sets[i]);
        if (rc == 0)
            rc = xv_extents_add(&sets[i], number(words[4 + 2 * i]), number(words[5 + 2 * i]),
                                &error);
    }
    struct xv_work_disk disk = {.key = words[1],
                                .device = "0",
                                .size = number(words[2]),
                                .base_index =
                                    strcmp(words[3], "-") == 0 ? -1 : (int)number(words[3]),
                                .read = &sets[0],
                                .keep = &sets[1],
                                .facts = "{\"snapshot\":\"s\"}"};
    if (rc == 0)
        rc = xv_work_put_map(slot_of(words[0])->session, &disk, NULL, &error);
    for (int i = 0; i < 2; i++)
        xv_extents_free(&sets[i]);
    return rc != 0 ? refuse(rc, error) : answer("");
}

int do_adopt(char **words)
{
    xvsa_error *error = NULL;
    struct xv_extents have;
    char text[32];
    xv_extents_init(&have);
    int rc = xv_work_adopt(writer_of(slot_of(words[0])), NULL, &have, &error);
    snprintf(text, sizeof text, "%llu", (unsigned long long)xv_extents_bytes(&have));
    xv_extents_free(&have);
    return rc != 0 ? refuse(rc, error) : answer(text);
}

int do_park(char **words)
{
    xvsa_error *error = NULL;
    struct slot *slot = slot_of(words[0]);
    int rc = xv_packer_flush(slot->packer, NULL, &error);
    if (rc == 0)
        rc = xv_session_park(slot->session, NULL, &error);
    clear_slot(slot);
    return rc != 0 ? refuse(rc, error) : answer("");
}

/* Answers with a document, which is taken over. */
static int answer_json(json_t *document)
{
    char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    if (text == NULL)
        die("json");
    json_decref(document);
    answer(text);
    free(text);
    return 0;
}

static json_t *ranges_json(const struct xv_extents *set)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < set->count; i++)
        json_array_append_new(rows, json_pack("[I, I]", (json_int_t)set->ranges[i].offset,
                                              (json_int_t)set->ranges[i].length));
    return rows;
}

int do_done(char **words)
{
    xvsa_error *error = NULL;
    struct xv_extents done;
    xv_extents_init(&done);
    int rc = xv_work_done(repo, words[0], words[1], NULL, &done, &error);
    json_t *rows = ranges_json(&done);
    xv_extents_free(&done);
    if (rc == 0)
        return answer_json(rows);
    json_decref(rows);
    return refuse(rc, error);
}

int do_read_map(char **words)
{
    xvsa_error *error = NULL;
    struct xv_work_map map;
    int rc = xv_work_get_map(repo, words[0], words[1], NULL, &map, &error);
    if (rc != 0)
        return refuse(rc, error);
    json_t *document =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:i, s:o, s:o}", "key", map.key, "device", map.device,
                  "facts", map.facts, "size", (json_int_t)map.size, "base", map.base, "base_index",
                  map.base_index, "read", ranges_json(&map.read), "keep", ranges_json(&map.keep));
    xv_work_map_free(&map);
    return answer_json(document);
}

int do_works(char **words)
{
    xvsa_error *error = NULL;
    char hex[2 * XV_HANDLE_BYTES + 1];
    json_t *document = json_object();
    (void)words;
    int rc = xv_journal_enter(repo, NULL, &error);
    if (rc != 0) {
        json_decref(document);
        return refuse(rc, error);
    }
    for (size_t i = 0; i < repo->state.work_count; i++) {
        const struct xv_work *work = &repo->state.works[i];
        json_t *rows = json_array();
        for (size_t k = 0; k < work->fact_count; k++)
            json_array_append_new(rows, xv_json_handle(work->facts[k].id.bytes));
        xv_hex_encode(work->id.bytes, XV_HANDLE_BYTES, hex);
        json_object_set_new(document, hex, rows);
    }
    xv_baton_give(&repo->journal);
    return answer_json(document);
}
