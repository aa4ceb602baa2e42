/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of a session: begin, checkpoints, commit or abort. Order matters: what the journal names is
 * durable before it is named.
 */
#include "repo/session.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "repo/work.h"

#define DATA_BUFFERS   2
#define NODE_BUFFERS   1
#define DATA_UPLOADERS 2
/* For ending a session that could not be used. */
#define GIVE_UP_MS 5000

static const char *const kinds[] = {"backup", "restore", "maintenance", "copy", "verify", "part"};

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
    struct xv_remains left;
};

int xv_session_check(const struct xv_session *session, const struct xv_state *state,
                     xvsa_error **error)
{
    uint64_t newest = xv_state_token(state, session->job_key);
    bool active = xv_state_session(state, session->id) != NULL;
    if (active && (!session->has_work || xv_state_work(state, session->work) != NULL))
        return 0;
    if (!active && newest > session->token)
        return xv_fail(
            error, XVSA_ERR_FENCED, "repo", "session %llu of '%s' is void: session %llu took over",
            (unsigned long long)session->token, session->job_key, (unsigned long long)newest);
    return xv_fail(error, XVSA_ERR_FENCED, "repo", "session %llu of '%s' is void: %s",
                   (unsigned long long)session->token, session->job_key,
                   active ? "the work that it belongs to is over" : "somebody else ended it");
}

/* A part may only begin while its work is open; a backup ends what was open under its key. */
static int check_work(struct beginning *beginning, const struct xv_state *state, xvsa_error **error)
{
    const struct xv_session *session = beginning->session;
    if (session->kind == XV_SESSION_PART && xv_state_work(state, session->work) == NULL)
        return xv_fail(error, XVSA_ERR_FENCED, "repo",
                       "nobody works on %s any more: '%s' has nothing to take part in",
                       beginning->options->work_id, session->job_key);
    if (session->kind != XV_SESSION_BACKUP)
        return 0;
    return xv_remains_collect_others(&beginning->left, state, session->job_key,
                                     session->has_work ? session->work : NULL, error);
}

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
    int rc = check_work(beginning, state, error);
    if (rc != 0)
        return rc;
    xv_session_owner(owner, sizeof owner);
    json_t *pins = json_array();
    if (pins != NULL && beginning->options->base != NULL)
        json_array_append_new(pins, xv_json_handle(beginning->options->base->id_bytes));
    json_t *record = json_pack(
        "{s:i, s:i, s:o, s:s, s:s, s:I, s:s, s:o, s:o*}", "type", XV_RECORD_SESSION_BEGIN, "flags",
        XV_RECORD_STOPS_WRITERS, "session", xv_json_handle(session->id), "kind",
        kinds[session->kind], "key", session->job_key, "token", (json_int_t)session->token, "owner",
        owner, "pins", pins, "work", session->has_work ? xv_json_handle(session->work) : NULL);
    if (record == NULL || json_array_append_new(records, record) != 0)
        return xv_fail_memory(error);
    if (session->kind != XV_SESSION_BACKUP)
        return 0;
    return xv_parts_end_others(state, session->job_key, session->has_work ? session->work : NULL,
                               records, error);
}

static int append_begin(struct xv_session *session, const struct xv_session_options *options,
                        const struct xv_call *call, xvsa_error **error)
{
    struct beginning beginning = {.session = session, .options = options};
    uint64_t accepted = 0;
    int rc = xv_journal_append(session->repo, make_begin, &beginning, call, &accepted, error);
    if (rc != 0) {
        free(beginning.left.ids);
        return rc;
    }
    const struct xv_active_session *active = xv_state_session(&session->repo->state, session->id);
    rc = xv_session_check(session, &session->repo->state, error);
    /* The pin holds only when the point was still there at our position. */
    if (rc == 0 && options->base != NULL && active->pin_count > 0)
        session->base = xv_point_ref(options->base);
    xv_baton_give(&session->repo->journal);
    if (rc == 0)
        xv_remains_remove(&beginning.left, session->repo, call);
    free(beginning.left.ids);
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

static int read_work(const struct xv_session_options *options, struct xv_session *session,
                     xvsa_error **error)
{
    static const uint8_t none[XV_HANDLE_BYTES];
    bool may = options->kind == XV_SESSION_BACKUP || options->kind == XV_SESSION_PART;
    if (options->work_id == NULL && options->kind != XV_SESSION_PART)
        return 0;
    session->has_work = true;
    if (!may || options->work_id == NULL || strlen(options->work_id) != 2 * XV_HANDLE_BYTES ||
        xv_hex_decode(options->work_id, session->work, XV_HANDLE_BYTES) != 0 ||
        memcmp(session->work, none, sizeof none) == 0)
        return xv_fail(
            error, XVSA_ERR_INVALID, "repo",
            "'%s': a work is named by 32 hex digits, and only backups and parts have one",
            session->job_key);
    return 0;
}

static int append_end(struct xv_session *session, const char *outcome, const struct xv_call *call,
                      xvsa_error **error);

/* The journal has it, but its beginner does not: left active, it would keep its base from being deleted. What belongs
 * to its work is not its to give up. */
static void give_up(struct xv_session *session)
{
    const struct xv_call call = {.deadline_ms = xv_clock_ms() + GIVE_UP_MS};
    xvsa_error *error = NULL;
    if (append_end(session, session->has_work ? "parked" : "aborted", &call, &error) != 0)
        xv_log(session->repo->env, XVSA_LOG_WARNING, "repo",
               "session %llu of '%s' stays active: %s", (unsigned long long)session->token,
               session->job_key, xvsa_error_message(error));
    xvsa_error_unref(error);
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
    xv_placed_init(&session->placed);
    session->job_key = strdup(options->job_key);
    int rc = xv_known_init(&session->known, error);
    if (rc == 0 && session->job_key == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0)
        rc = read_work(options, session, error);
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
        if (rc != 0)
            give_up(session);
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

struct ending {
    struct xv_session *session;
    const char *outcome;
    struct xv_remains left;
};

static int make_end(void *user, const struct xv_state *state, json_t *records, xvsa_error **error)
{
    struct ending *ending = user;
    struct xv_session *session = ending->session;
    bool gives_up = session->kind == XV_SESSION_BACKUP && strcmp(ending->outcome, "parked") != 0;
    int rc = xv_session_check(session, state, error);
    /* A part ends whether its work is over or not. */
    if (rc != 0 && xv_state_session(state, session->id) != NULL) {
        xv_fault_drop(error);
        rc = 0;
    }
    if (rc == 0 && gives_up && session->has_work)
        rc = xv_remains_collect(&ending->left, state, session->work, error);
    if (rc != 0)
        return rc;
    json_t *record = xv_session_end_record(session->id, ending->outcome);
    if (record == NULL || json_array_append_new(records, record) != 0)
        return xv_fail_memory(error);
    return gives_up && session->has_work ? xv_parts_end(state, session->work, records, error) : 0;
}

json_t *xv_session_end_record(const uint8_t *session, const char *outcome)
{
    return json_pack("{s:i, s:i, s:o, s:s}", "type", XV_RECORD_SESSION_END, "flags",
                     XV_RECORD_STOPS_WRITERS, "session", xv_json_handle(session), "outcome",
                     outcome);
}

static int append_end(struct xv_session *session, const char *outcome, const struct xv_call *call,
                      xvsa_error **error)
{
    struct ending ending = {.session = session, .outcome = outcome};
    uint64_t accepted = 0;
    int rc = xv_journal_append(session->repo, make_end, &ending, call, &accepted, error);
    if (rc == 0) {
        xv_baton_give(&session->repo->journal);
        xv_remains_remove(&ending.left, session->repo, call);
    }
    free(ending.left.ids);
    session->ended = rc == 0 || rc == XVSA_ERR_FENCED;
    return rc;
}

int xv_session_abort(struct xv_session *session, const struct xv_call *call, xvsa_error **error)
{
    if (session->ended)
        return 0;
    xvsa_error *e = NULL;
    int rc = append_end(session, "aborted", call, &e);
    /* Ended by somebody else is ended. */
    if (rc == 0 || rc == XVSA_ERR_FENCED) {
        xvsa_error_unref(e);
        return 0;
    }
    if (error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

int xv_session_park(struct xv_session *session, const struct xv_call *call, xvsa_error **error)
{
    if (session->ended || !session->has_work)
        return xv_fail(error, XVSA_ERR_STATE, "repo",
                       "the session of '%s' has %s: there is nothing to go on with",
                       session->job_key, session->ended ? "ended" : "no work");
    int rc = xv_session_checkpoint(session, call, error);
    return rc == 0 ? append_end(session, "parked", call, error) : rc;
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
    xv_placed_free(&session->placed);
    xv_point_unref(session->base);
    pthread_mutex_destroy(&session->lock);
    xv_baton_destroy(&session->checkpoint);
    free(session->job_key);
    xv_repo_unref(session->repo);
    free(session);
}
