/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of a session: begin, checkpoints, commit or abort. Order matters: what the journal names is
 * durable before it is named.
 */
#include "repo/session.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_BUFFERS   2
#define NODE_BUFFERS   1
#define DATA_UPLOADERS 2

static const char *const kinds[] = {"backup", "restore", "maintenance", "copy", "verify"};

/* Who runs the session: machine start, process name space, process and its start. Enough to know that
 * a session of this machine is dead. */
void xv_session_owner(char *text, size_t size)
{
    char boot[40] = "";
    char space[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fgets(boot, sizeof boot, file) != NULL)
            boot[strcspn(boot, "\n")] = '\0';
        fclose(file);
    }
    ssize_t length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    space[length < 0 ? 0 : length] = '\0';
    snprintf(text, size, "%s %s %ld %llu", boot, space, (long)getpid(),
             (unsigned long long)xv_process_start(getpid()));
}

uint64_t xv_process_start(pid_t pid)
{
    char path[64];
    char line[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fgets(line, sizeof line, file) != NULL) {
        /* The command's name may hold anything; the 22nd field is the 20th after its bracket. */
        char *at = strrchr(line, ')');
        for (int i = 0; at != NULL && i < 20; i++)
            at = strchr(at + 1, ' ');
        if (at != NULL && sscanf(at, " %llu", &start) != 1)
            start = 0;
    }
    fclose(file);
    return start;
}

bool xv_session_owner_dead(const char *owner)
{
    char ours[256];
    char boot[64], space[64], their_boot[64], their_space[64];
    long pid, our_pid;
    unsigned long long start, our_start;
    xv_session_owner(ours, sizeof ours);
    if (sscanf(ours, "%63s %63s %ld %llu", boot, space, &our_pid, &our_start) != 4 ||
        sscanf(owner, "%63s %63s %ld %llu", their_boot, their_space, &pid, &start) != 4 ||
        strcmp(boot, their_boot) != 0 || strcmp(space, their_space) != 0 || pid <= 0 || start == 0)
        return false;
    return xv_process_start((pid_t)pid) != start;
}

struct beginning {
    struct xv_session *session;
    const struct xv_session_options *options;
};

static int make_begin(void *user, const struct xv_state *state, json_t *records, xvsa_error **error)
{
    struct beginning *beginning = user;
    struct xv_session *session = beginning->session;
    char owner[256];
    session->token = beginning->options->token;
    uint64_t highest = xv_state_token(state, session->job_key);
    if (session->token == 0)
        session->token = highest + 1;
    if (session->token <= highest || session->token > INT64_MAX)
        return xv_fail(
            error, XVSA_ERR_FENCED, "repo", "session %llu of '%s' comes after session %llu",
            (unsigned long long)session->token, session->job_key, (unsigned long long)highest);
    xv_session_owner(owner, sizeof owner);
    json_t *pins = json_array();
    if (pins != NULL && beginning->options->base != NULL)
        json_array_append_new(pins, xv_json_handle(beginning->options->base->id_bytes));
    json_t *record =
        json_pack("{s:i, s:i, s:o, s:s, s:s, s:I, s:s, s:o}", "type", XV_RECORD_SESSION_BEGIN,
                  "flags", XV_RECORD_STOPS_WRITERS, "session", xv_json_handle(session->id), "kind",
                  kinds[session->kind], "key", session->job_key, "token",
                  (json_int_t)session->token, "owner", owner, "pins", pins);
    if (record == NULL || json_array_append_new(records, record) != 0)
        return xv_fail_memory(error);
    return 0;
}

static int append_begin(struct xv_session *session, const struct xv_session_options *options,
                        const struct xv_call *call, xvsa_error **error)
{
    struct beginning beginning = {session, options};
    uint64_t accepted = 0;
    int rc = xv_journal_append(session->repo, make_begin, &beginning, call, &accepted, error);
    if (rc != 0)
        return rc;
    const struct xv_active_session *active = xv_state_session(&session->repo->state, session->id);
    if (active == NULL)
        rc = xv_fail(error, XVSA_ERR_FENCED, "repo", "a newer session of '%s' took over",
                     session->job_key);
    /* The pin holds only when the point was still there at our position. */
    if (rc == 0 && options->base != NULL && active->pin_count > 0)
        session->base = xv_point_ref(options->base);
    xv_baton_give(&session->repo->journal);
    return rc;
}

static int open_packs(struct xv_session *session, xvsa_error **error)
{
    struct xv_repo *repo = session->repo;
    struct xv_pack_writer_options options = {.crypt = repo->crypt,
                                             .target = repo->target,
                                             .chunk_log2 = repo->config.chunk_log2,
                                             .pack_target = repo->config.pack_target,
                                             .buffers = DATA_BUFFERS,
                                             .uploaders = DATA_UPLOADERS};
    memcpy(options.session, session->id, XV_HANDLE_BYTES);
    int rc = xv_pack_writer_new(&options, &session->data, error);
    options.nodes = true;
    options.buffers = NODE_BUFFERS;
    options.uploaders = 1;
    if (rc == 0)
        rc = xv_pack_writer_new(&options, &session->nodes, error);
    return rc;
}

int xv_session_begin(struct xv_repo *repo, const struct xv_session_options *options,
                     const struct xv_call *call, struct xv_session **ret, xvsa_error **error)
{
    if (options->job_key == NULL || options->kind >= sizeof kinds / sizeof kinds[0] ||
        strlen(options->job_key) > 512)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "a session needs a key and a kind");
    struct xv_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return xv_fail_memory(error);
    session->repo = xv_repo_ref(repo);
    session->kind = options->kind;
    session->ended = true;
    xv_baton_init(&session->checkpoint);
    pthread_mutex_init(&session->lock, NULL);
    session->job_key = strdup(options->job_key);
    int rc = xv_known_init(&session->known, error);
    if (rc == 0 && session->job_key == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0)
        rc = xv_random(session->id, sizeof session->id, error);
    if (rc == 0)
        rc = open_packs(session, error);
    if (rc == 0)
        rc = append_begin(session, options, call, error);
    if (rc == 0) {
        session->ended = false;
        /* Only what was read after our beginning may be referred to: collection of garbage that
         * began before it waits for us, and what it condemned is not in this view. */
        rc = xv_index_sync(repo->index, call, error);
    }
    if (rc != 0) {
        xv_session_free(session);
        return rc;
    }
    *ret = session;
    return 0;
}

uint64_t xv_session_memory(const struct xv_repo *repo)
{
    return (uint64_t)(DATA_BUFFERS + NODE_BUFFERS) * repo->config.pack_target;
}

struct xv_point *xv_session_base(const struct xv_session *session)
{
    return session->base;
}

static int fail_fenced(const struct xv_session *session, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_FENCED, "repo",
                   "session %llu of '%s' was ended by somebody else: its work is void",
                   (unsigned long long)session->token, session->job_key);
}

/* Before records that a session writes: is it still active? */
static int check_active(const struct xv_session *session, const struct xv_state *state,
                        xvsa_error **error)
{
    return xv_state_session(state, session->id) == NULL ? fail_fenced(session, error) : 0;
}

struct adding {
    struct xv_session *session;
    json_t *segments;
};

static int make_index_add(void *user, const struct xv_state *state, json_t *records,
                          xvsa_error **error)
{
    struct adding *adding = user;
    int rc = check_active(adding->session, state, error);
    if (rc != 0)
        return rc;
    json_t *record =
        json_pack("{s:i, s:i, s:o, s:O}", "type", XV_RECORD_INDEX_ADD, "flags", 0, "session",
                  xv_json_handle(adding->session->id), "segments", adding->segments);
    if (record == NULL || json_array_append_new(records, record) != 0)
        return xv_fail_memory(error);
    return 0;
}

/* Writes one segment of what has none yet; *ret_count tells how many entries went into it. */
static int write_segment(struct xv_session *session, uint32_t skip, uint32_t limit,
                         json_t *segments, uint32_t *ret_count, const struct xv_call *call,
                         xvsa_error **error)
{
    struct xv_segment_entry *entries = NULL;
    uint8_t id[XV_HANDLE_BYTES];
    char name[XV_NAME_BYTES];
    uint8_t *data = NULL;
    size_t length = 0;
    uint32_t head = 0;
    int rc = xv_known_unindexed(&session->known, skip, limit, &entries, ret_count, error);
    if (rc != 0 || *ret_count == 0)
        return rc;
    rc = xv_random(id, sizeof id, error);
    xv_handle_name("ix", id, name);
    if (rc == 0)
        rc = xv_segment_encode(session->repo->crypt, id, entries, *ret_count, &data, &length, &head,
                               error);
    free(entries);
    xvsa_buffer piece = {data, length};
    if (rc == 0)
        rc = xv_target_put(session->repo->target, name, &piece, 1, 0, call, error);
    free(data);
    if (rc != 0)
        return rc;
    json_t *fact =
        json_pack("{s:o, s:I, s:I, s:I}", "id", xv_json_handle(id), "length", (json_int_t)length,
                  "head", (json_int_t)head, "entries", (json_int_t)*ret_count);
    if (fact == NULL || json_array_append_new(segments, fact) != 0)
        return xv_fail_memory(error);
    return 0;
}

/* Everything up to the first count entries is in packs that were put. */
static int index_packs(struct xv_session *session, uint32_t count, const struct xv_call *call,
                       xvsa_error **error)
{
    struct adding adding = {session, json_array()};
    uint64_t accepted = 0;
    int rc = adding.segments == NULL ? xv_fail_memory(error) : 0;
    for (uint32_t done = 0; rc == 0 && done < count;) {
        uint32_t left = count - done;
        uint32_t limit = left < XV_SEGMENT_ENTRIES_MAX ? left : XV_SEGMENT_ENTRIES_MAX;
        uint32_t written = 0;
        rc = write_segment(session, done, limit, adding.segments, &written, call, error);
        done += written;
    }
    if (rc == 0 && json_array_size(adding.segments) > 0) {
        rc = xv_target_barrier(session->repo->target, call, error);
        if (rc == 0) {
            rc = xv_journal_append(session->repo, make_index_add, &adding, call, &accepted, error);
            if (rc == 0)
                xv_baton_give(&session->repo->journal);
        }
        if (rc == 0 && (accepted & 1) == 0)
            rc = fail_fenced(session, error);
        if (rc == 0)
            xv_known_indexed(&session->known, count);
    }
    json_decref(adding.segments);
    return rc;
}

/* With the checkpoint's baton. */
static int make_checkpoint(struct xv_session *session, const struct xv_call *call,
                           xvsa_error **error)
{
    pthread_mutex_lock(&session->known.lock);
    uint32_t count = session->known.count - session->known.indexed;
    pthread_mutex_unlock(&session->known.lock);
    /* What is known by now is in packs that these flushes put; what comes meanwhile may not be. */
    int rc = xv_pack_writer_flush(session->data, call, error);
    if (rc == 0)
        rc = xv_pack_writer_flush(session->nodes, call, error);
    if (rc == 0)
        rc = index_packs(session, count, call, error);
    if (rc == 0 && xv_known_count(&session->known) >= XV_KNOWN_MAX) {
        rc = xv_index_sync(session->repo->index, call, error);
        if (rc == 0)
            xv_known_forget(&session->known);
    }
    return rc;
}

int xv_session_checkpoint(struct xv_session *session, const struct xv_call *call,
                          xvsa_error **error)
{
    int rc = xv_baton_take(&session->checkpoint, call, error);
    if (rc != 0)
        return rc;
    rc = make_checkpoint(session, call, error);
    xv_baton_give(&session->checkpoint);
    return rc;
}

static int make_end(void *user, const struct xv_state *state, json_t *records, xvsa_error **error)
{
    struct xv_session *session = user;
    int rc = check_active(session, state, error);
    if (rc != 0)
        return rc;
    json_t *record = xv_session_end_record(session->id, "aborted");
    if (record == NULL || json_array_append_new(records, record) != 0)
        return xv_fail_memory(error);
    return 0;
}

json_t *xv_session_end_record(const uint8_t *session, const char *outcome)
{
    return json_pack("{s:i, s:i, s:o, s:s}", "type", XV_RECORD_SESSION_END, "flags",
                     XV_RECORD_STOPS_WRITERS, "session", xv_json_handle(session), "outcome",
                     outcome);
}

int xv_session_abort(struct xv_session *session, const struct xv_call *call, xvsa_error **error)
{
    if (session->ended)
        return 0;
    uint64_t accepted = 0;
    xvsa_error *e = NULL;
    int rc = xv_journal_append(session->repo, make_end, session, call, &accepted, &e);
    if (rc == 0)
        xv_baton_give(&session->repo->journal);
    /* Ended by somebody else is ended. */
    if (rc == 0 || rc == XVSA_ERR_FENCED) {
        session->ended = true;
        xvsa_error_unref(e);
        return 0;
    }
    if (error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

void xv_session_free(struct xv_session *session)
{
    if (session == NULL)
        return;
    while (session->disks != NULL)
        xv_disk_writer_free(session->disks);
    xv_pack_writer_free(session->data);
    xv_pack_writer_free(session->nodes);
    xv_known_free(&session->known);
    xv_point_unref(session->base);
    pthread_mutex_destroy(&session->lock);
    xv_baton_destroy(&session->checkpoint);
    free(session->job_key);
    xv_repo_unref(session->repo);
    free(session);
}
