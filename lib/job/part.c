/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The part sessions of an assistant. They share one pipeline, which is there as long as one of them is.
 */
#include "job/part.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

#define TICK_MS       1000
#define CHECKPOINT_MS 5000
/* A part that nobody used for so long is ended. */
#define IDLE_MS   60000
#define FINISH_MS 30000
/* Of the memory, for blocks; the rest is for packs. */
#define BLOCKS_PART  4u
#define BLOCK_LEAST  (256u << 10)
#define MEMORY_LEAST (16u << 20)

struct xv_part {
    struct xv_part *next;
    struct xv_assistant *assistant;
    char *work_id;
    struct xv_session *session;
    struct xv_intake *intake;
    xvsa_cancel *cancel;
    pthread_mutex_t lock; /* guards disks, held while one is opened */
    struct xv_part_disk *disks;
    /* Guarded by the assistant's lock. */
    unsigned users;
    bool over; /* ended as soon as nobody uses it */
    int64_t used_ms, checkpoint_ms;
};

struct xv_assistant {
    struct xv_engine *engine;
    struct xv_pool *pool;
    struct xv_repo *repo;
    pthread_mutex_t setup;        /* held while parts begin and end; before lock */
    struct xv_pipeline *pipeline; /* NULL without parts; guarded by setup, as is share */
    struct xv_share share;        /* taken of the engine while there is a pipeline */
    pthread_mutex_t lock;         /* guards what follows */
    pthread_cond_t stop;
    struct xv_part *parts; /* changed with both locks */
    bool stopping;
    pthread_t keeper;
};

struct xv_pool *xv_assistant_pool(const struct xv_assistant *assistant)
{
    return assistant->pool;
}

struct xv_repo *xv_assistant_repo(const struct xv_assistant *assistant)
{
    return assistant->repo;
}

struct xv_intake *xv_part_intake(const struct xv_part *part)
{
    return part->intake;
}

xvsa_cancel *xv_part_cancel(const struct xv_part *part)
{
    return part->cancel;
}

int xv_part_checkpoint(struct xv_part *part, const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_intake_flush(part->intake, call, error);
    if (rc == 0)
        rc = xv_session_checkpoint(part->session, call, error);
    pthread_mutex_lock(&part->assistant->lock);
    part->checkpoint_ms = xv_clock_ms();
    part->over = part->over || rc == XVSA_ERR_FENCED;
    pthread_mutex_unlock(&part->assistant->lock);
    return rc;
}

static void free_disks(struct xv_part *part)
{
    while (part->disks != NULL) {
        struct xv_part_disk *next = part->disks->next;
        if (part->disks->writer != NULL)
            xv_disk_writer_free(part->disks->writer);
        xv_work_map_free(&part->disks->map);
        free(part->disks);
        part->disks = next;
    }
}

/* Of a part that is out of the list. */
static void free_part(struct xv_part *part)
{
    const struct xv_call call = {.deadline_ms = xv_clock_ms() + FINISH_MS};
    xvsa_error *error = NULL;
    xv_intake_free(part->intake);
    free_disks(part);
    if (part->session != NULL && xv_session_abort(part->session, &call, &error) != 0)
        xv_log(xv_engine_env(part->assistant->engine), XVSA_LOG_INFO, "job",
               "the part session of work %s is left: %s", part->work_id, xvsa_error_message(error));
    xvsa_error_unref(error);
    xv_session_free(part->session);
    xvsa_cancel_unref(part->cancel);
    pthread_mutex_destroy(&part->lock);
    free(part->work_id);
    free(part);
}

static bool is_useless(const struct xv_part *part)
{
    return part->over || xvsa_cancel_is_fired(part->cancel) != 0;
}

/* Takes one unused part out of the list: one that is over, else the one that has been idle the longest, when that
 * is so long. With setup. */
static struct xv_part *take_out(struct xv_assistant *assistant, int64_t idle_ms)
{
    int64_t before = xv_clock_ms() - idle_ms;
    struct xv_part **found = NULL;
    pthread_mutex_lock(&assistant->lock);
    for (struct xv_part **at = &assistant->parts; *at != NULL; at = &(*at)->next) {
        struct xv_part *part = *at;
        if (part->users > 0 || (!is_useless(part) && part->used_ms > before))
            continue;
        if (found == NULL || is_useless(part) || part->used_ms < (*found)->used_ms)
            found = at;
        if (is_useless(part))
            break;
    }
    struct xv_part *out = found == NULL ? NULL : *found;
    if (out != NULL)
        *found = out->next;
    pthread_mutex_unlock(&assistant->lock);
    return out;
}

/* With setup: the pipeline goes with the last part. */
static void drop_pipeline(struct xv_assistant *assistant)
{
    if (assistant->pipeline == NULL || assistant->parts != NULL)
        return;
    xv_pipeline_free(assistant->pipeline);
    assistant->pipeline = NULL;
    xv_engine_give_back(assistant->engine, assistant->share);
}

static void end_parts(struct xv_assistant *assistant, int64_t idle_ms)
{
    struct xv_part *part;
    pthread_mutex_lock(&assistant->setup);
    while ((part = take_out(assistant, idle_ms)) != NULL)
        free_part(part);
    drop_pipeline(assistant);
    pthread_mutex_unlock(&assistant->setup);
}

static int make_pipeline(struct xv_assistant *assistant, xvsa_error **error)
{
    if (assistant->pipeline != NULL)
        return 0;
    uint32_t chunk = xv_repo_chunk_size(assistant->repo);
    struct xv_share *share = &assistant->share;
    *share = xv_engine_take(assistant->engine);
    uint64_t memory = share->memory < MEMORY_LEAST ? MEMORY_LEAST : share->memory;
    int rc = xv_pipeline_new(share->threads == 0 ? 1 : share->threads, memory / BLOCKS_PART,
                             chunk > BLOCK_LEAST ? chunk : BLOCK_LEAST, NULL, &assistant->pipeline,
                             error);
    if (rc != 0)
        xv_engine_give_back(assistant->engine, *share);
    return rc;
}

/* With setup: makes room for the packs of one more part. A first one always has it. */
static int admit(struct xv_assistant *assistant, xvsa_error **error)
{
    uint64_t memory = assistant->share.memory;
    uint64_t room = memory - memory / BLOCKS_PART;
    uint64_t each = xv_session_memory(assistant->repo);
    for (;;) {
        uint64_t held = 0;
        for (const struct xv_part *part = assistant->parts; part != NULL; part = part->next)
            held += each;
        if (held == 0 || held + each <= room)
            return 0;
        struct xv_part *idle = take_out(assistant, 0);
        if (idle == NULL) {
            int rc = xv_fail(error, XVSA_ERR_BUSY, "job",
                             "there is no memory to help with one more work at a time");
            xv_error_set_retryable(error == NULL ? NULL : *error, true);
            return rc;
        }
        free_part(idle);
    }
}

/* Parts compare with the same point as the owner's session. */
static int find_base(struct xv_assistant *assistant, const struct xv_work_map *map,
                     const struct xv_call *call, struct xv_point **ret, xvsa_error **error)
{
    if (map->base[0] == '\0')
        return 0;
    return xv_repo_find_point(assistant->repo, map->base, call, ret, error);
}

static int begin_session(struct xv_part *part, const struct xv_assist_unit *unit,
                         const struct xv_call *call, xvsa_error **error)
{
    struct xv_assistant *assistant = part->assistant;
    struct xv_work_map map;
    struct xv_point *base = NULL;
    char key[512];
    int rc = xv_work_get_map(assistant->repo, unit->work_id, unit->disk.key, call, &map, error);
    if (rc != 0)
        return rc;
    snprintf(key, sizeof key, "%s#%s#%s", unit->key, unit->work_id, unit->member);
    rc = find_base(assistant, &map, call, &base, error);
    const struct xv_session_options options = {
        .job_key = key, .kind = XV_SESSION_PART, .work_id = unit->work_id, .base = base};
    if (rc == 0)
        rc = xv_session_begin(assistant->repo, &options, call, &part->session, error);
    if (rc == 0)
        rc = xv_intake_new(assistant->pipeline, part->session, part->cancel, &part->intake, error);
    xv_point_unref(base);
    xv_work_map_free(&map);
    return rc;
}

/* With setup. */
static int make_part(struct xv_assistant *assistant, const struct xv_assist_unit *unit,
                     const struct xv_call *call, struct xv_part **ret, xvsa_error **error)
{
    struct xv_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&part->lock, NULL);
    part->assistant = assistant;
    part->work_id = strdup(unit->work_id);
    part->checkpoint_ms = xv_clock_ms();
    int rc = part->work_id == NULL ? xv_fail_memory(error) : xvsa_cancel_new(&part->cancel, error);
    if (rc == 0)
        rc = begin_session(part, unit, call, error);
    if (rc != 0) {
        free_part(part);
        return rc;
    }
    *ret = part;
    return 0;
}

/* The part of a work in the list, with one user more; NULL when there is none of use. */
static struct xv_part *find_part(struct xv_assistant *assistant, const char *work_id)
{
    struct xv_part *part;
    pthread_mutex_lock(&assistant->lock);
    for (part = assistant->parts; part != NULL; part = part->next) {
        if (!is_useless(part) && strcmp(part->work_id, work_id) == 0)
            break;
    }
    if (part != NULL)
        part->users++;
    pthread_mutex_unlock(&assistant->lock);
    return part;
}

static int begin_part(struct xv_assistant *assistant, const struct xv_assist_unit *unit,
                      const struct xv_call *call, struct xv_part **ret, xvsa_error **error)
{
    struct xv_part *part = NULL;
    int rc = make_pipeline(assistant, error);
    if (rc == 0)
        rc = admit(assistant, error);
    if (rc == 0)
        rc = make_part(assistant, unit, call, &part, error);
    if (rc == 0) {
        pthread_mutex_lock(&assistant->lock);
        part->users = 1;
        part->next = assistant->parts;
        assistant->parts = part;
        pthread_mutex_unlock(&assistant->lock);
        *ret = part;
    }
    drop_pipeline(assistant);
    return rc;
}

int xv_part_take(struct xv_assistant *assistant, const struct xv_assist_unit *unit,
                 const struct xv_call *call, struct xv_part **ret, xvsa_error **error)
{
    int rc = 0;
    *ret = find_part(assistant, unit->work_id);
    if (*ret != NULL)
        return 0;
    pthread_mutex_lock(&assistant->setup);
    *ret = find_part(assistant, unit->work_id);
    if (*ret == NULL)
        rc = begin_part(assistant, unit, call, ret, error);
    pthread_mutex_unlock(&assistant->setup);
    return rc;
}

void xv_part_give_back(struct xv_part *part, bool over)
{
    if (part == NULL)
        return;
    struct xv_assistant *assistant = part->assistant;
    pthread_mutex_lock(&assistant->lock);
    part->users--;
    part->over = part->over || over;
    part->used_ms = xv_clock_ms();
    pthread_mutex_unlock(&assistant->lock);
}

static int make_disk(struct xv_part *part, const struct xv_board_disk *disk,
                     const struct xv_call *call, struct xv_part_disk **ret, xvsa_error **error)
{
    struct xv_part_disk *made = calloc(1, sizeof *made);
    if (made == NULL)
        return xv_fail_memory(error);
    int rc =
        xv_work_get_map(part->assistant->repo, part->work_id, disk->key, call, &made->map, error);
    if (rc != 0) {
        free(made);
        return rc;
    }
    bool based = xv_session_base(part->session) != NULL;
    rc = xv_session_add_disk(part->session, made->map.key, made->map.device, made->map.size,
                             based ? made->map.base_index : -1, call, &made->writer, error);
    made->next = part->disks;
    part->disks = made;
    *ret = made;
    return rc;
}

int xv_part_open_disk(struct xv_part *part, const struct xv_board_disk *disk,
                      const struct xv_call *call, struct xv_part_disk **ret, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&part->lock);
    struct xv_part_disk *found = part->disks;
    while (found != NULL && (found->writer == NULL || strcmp(found->map.key, disk->key) != 0))
        found = found->next;
    if (found == NULL)
        rc = make_disk(part, disk, call, &found, error);
    pthread_mutex_unlock(&part->lock);
    *ret = found;
    return rc;
}

/* A part that is in use and whose last checkpoint is old, with one user more. */
static struct xv_part *find_due(struct xv_assistant *assistant)
{
    int64_t before = xv_clock_ms() - CHECKPOINT_MS;
    struct xv_part *part = assistant->parts;
    while (part != NULL && (part->users == 0 || part->checkpoint_ms > before || is_useless(part)))
        part = part->next;
    if (part != NULL)
        part->users++;
    return part;
}

/* Makes the checkpoints of long units, and ends what is not used any more. */
static void *keep(void *argument)
{
    struct xv_assistant *assistant = argument;
    pthread_mutex_lock(&assistant->lock);
    while (!assistant->stopping) {
        struct xv_part *part = find_due(assistant);
        pthread_mutex_unlock(&assistant->lock);
        if (part != NULL) {
            const struct xv_call call = {.deadline_ms = xv_clock_ms() + FINISH_MS};
            xvsa_error *error = NULL;
            int rc = xv_part_checkpoint(part, &call, &error);
            if (rc != 0)
                /* Fenced: the work is over. */
                xv_log(xv_engine_env(assistant->engine),
                       rc == XVSA_ERR_FENCED ? XVSA_LOG_DEBUG : XVSA_LOG_WARNING, "job",
                       "checkpoint of a part: %s", xvsa_error_message(error));
            xvsa_error_unref(error);
            xv_part_give_back(part, false);
        } else {
            end_parts(assistant, IDLE_MS);
        }
        pthread_mutex_lock(&assistant->lock);
        if (part == NULL && !assistant->stopping)
            xv_condition_wait(&assistant->stop, &assistant->lock, TICK_MS);
    }
    pthread_mutex_unlock(&assistant->lock);
    return NULL;
}

int xv_assistant_new(struct xv_engine *engine, struct xv_pool *pool, struct xv_repo *repo,
                     struct xv_assistant **ret, xvsa_error **error)
{
    struct xv_assistant *assistant = calloc(1, sizeof *assistant);
    if (assistant == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&assistant->setup, NULL);
    pthread_mutex_init(&assistant->lock, NULL);
    xv_condition_init(&assistant->stop);
    assistant->engine = xv_engine_ref(engine);
    assistant->pool = xv_pool_ref(pool);
    assistant->repo = xv_repo_ref(repo);
    int rc = xv_thread_start("xvsa-assist", false, keep, assistant, &assistant->keeper, error);
    if (rc != 0) {
        assistant->stopping = true;
        xv_assistant_free(assistant);
        return rc;
    }
    *ret = assistant;
    return 0;
}

void xv_assistant_free(struct xv_assistant *assistant)
{
    if (assistant == NULL)
        return;
    pthread_mutex_lock(&assistant->lock);
    bool runs = !assistant->stopping;
    assistant->stopping = true;
    pthread_cond_broadcast(&assistant->stop);
    pthread_mutex_unlock(&assistant->lock);
    if (runs)
        pthread_join(assistant->keeper, NULL);
    end_parts(assistant, 0);
    xv_repo_unref(assistant->repo);
    xv_pool_unref(assistant->pool);
    xv_engine_unref(assistant->engine);
    pthread_cond_destroy(&assistant->stop);
    pthread_mutex_destroy(&assistant->lock);
    pthread_mutex_destroy(&assistant->setup);
    free(assistant);
}

void xv_assistant_forget(struct xv_assistant *assistant, const char *work_id)
{
    pthread_mutex_lock(&assistant->lock);
    for (struct xv_part *part = assistant->parts; part != NULL; part = part->next)
        part->over = part->over || strcmp(part->work_id, work_id) == 0;
    pthread_mutex_unlock(&assistant->lock);
    end_parts(assistant, IDLE_MS);
}
