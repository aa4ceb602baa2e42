/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "agent/help.h"

/* A pool that does not answer must not keep the thread that works from the member's own tasks. */
#define REACH_MS 60000

/* Beginning of a path up to, not including, its nth slash. */
static size_t words(const char *path, int count)
{
    const char *c = path;
    for (; *c != '\0'; c++) {
        if (*c == '/' && --count == 0)
            break;
    }
    return (size_t)(c - path);
}

static struct xv_agent_named_repo *find_repo(struct xv_agent *agent, const char *name)
{
    for (size_t i = 0; i < agent->repo_count; i++) {
        if (strcmp(agent->repos[i].name, name) == 0)
            return &agent->repos[i];
    }
    return NULL;
}

static bool is_running(const struct xv_task_record *task)
{
    return task != NULL && task->state == XV_TASK_RUNNING;
}

/* Takes the board at "b/<job>/<subject>/<disk>" up, when its task runs. */
static int add_board(struct xv_offers *offers, const struct xv_view_job *job,
                     const struct xv_kv_pair *pair, struct xv_agent_named_repo *repo)
{
    struct xv_offer *offer = &offers->offers[offers->count];
    const char *place = pair->key + strlen("b/");
    const char *subject = place + words(place, 1) + 1;
    snprintf(offer->subject, sizeof offer->subject, "%.*s", (int)words(subject, 1), subject);
    const struct xv_task_record *task = xv_view_task(job, offer->subject);
    if (!is_running(task))
        return 0;
    json_t *json = xv_pair_json(pair);
    if (xv_board_read(json, pair->key, &offer->disk, NULL) != 0) {
        json_decref(json);
        return 0;
    }
    offer->json = json;
    offer->job = job;
    offer->repo = repo;
    offer->mod = pair->mod_revision;
    snprintf(offer->place, sizeof offer->place, "%s", place);
    size_t sr = xv_reach_sr(&offers->reach, offer->disk.sr_uuid);
    offers->boards[offers->count++] = (struct xv_board){
        .key = offer->place,
        .sr = sr,
        .vm_host = xv_reach_host(&offers->reach, xv_member_text(task->json, "host")),
        .owner = xv_reach_proxy(&offers->reach, task->owner),
        .priority = (int32_t)job->job.priority,
        .submitted = (uint64_t)job->job.submitted_ms,
        .units_free = offer->disk.units,
        .bytes_left = offer->disk.bytes,
    };
    return 0;
}

static struct xv_board *board_of(struct xv_offers *offers, const char *place)
{
    size_t length = words(place, 3);
    for (size_t i = 0; i < offers->count; i++) {
        if (strlen(offers->offers[i].place) == length &&
            strncmp(offers->offers[i].place, place, length) == 0)
            return &offers->boards[i];
    }
    return NULL;
}

static void count_done(struct xv_offers *offers, const struct xv_kv_list *done)
{
    for (size_t i = 0; i < done->count; i++) {
        struct xv_board *board = board_of(offers, done->pairs[i].key + strlen("d/"));
        if (board == NULL || board->units_free == 0)
            continue;
        const struct xv_board_disk *disk = &offers->offers[board - offers->boards].disk;
        uint64_t each = disk->units == 0 ? 0 : disk->bytes / disk->units;
        board->units_free--;
        board->bytes_left -= each < board->bytes_left ? each : board->bytes_left;
    }
}

/* Of its own disks a proxy knows itself what they use. */
static void count_claims(const struct xv_agent *agent, struct xv_offers *offers,
                         const struct xv_kv_list *claims)
{
    size_t self = xv_reach_proxy(&offers->reach, agent->name);
    for (size_t i = 0; i < claims->count; i++) {
        struct xv_board *board = board_of(offers, claims->pairs[i].key + strlen("c/"));
        json_t *json = xv_pair_json(&claims->pairs[i]);
        const char *member = xv_member_text(json, "member");
        size_t proxy = xv_reach_proxy(&offers->reach, member);
        bool own = board != NULL && board->owner == self;
        if (board != NULL) {
            board->units_free -= board->units_free > 0;
            board->movers++;
            board->own_movers += strcmp(member, agent->name) == 0;
            if (board->sr != XV_SCHED_NONE && !own)
                offers->sr_transfers[board->sr]++;
        }
        size_t host =
            proxy == XV_SCHED_NONE ? XV_SCHED_NONE : offers->reach.site.proxies[proxy].host;
        if (board != NULL && host != XV_SCHED_NONE && !own)
            offers->host_connections[host] += XV_SCHED_DISK_CONNECTIONS;
        json_decref(json);
    }
}

static int grow(struct xv_offers *offers, size_t count, xvsa_error **error)
{
    struct xv_offer *more =
        realloc(offers->offers, (offers->count + count + 1) * sizeof *offers->offers);
    if (more == NULL)
        return xv_fail_memory(error);
    offers->offers = more;
    struct xv_board *boards =
        realloc(offers->boards, (offers->count + count + 1) * sizeof *offers->boards);
    if (boards == NULL)
        return xv_fail_memory(error);
    offers->boards = boards;
    return 0;
}

static int read_job(struct xv_agent *agent, struct xv_offers *offers, const struct xv_view_job *job,
                    xvsa_error **error)
{
    struct xv_agent_named_repo *repo = find_repo(agent, job->job.repository);
    struct xv_call call = xv_agent_call(agent);
    struct xv_kv_list boards = {0};
    struct xv_kv_list claims = {0};
    struct xv_kv_list done = {0};
    if (repo == NULL)
        return 0;
    int rc = xv_kv_read(agent->kv, &call, &boards, error, "b/%s/", job->job.id);
    if (rc == 0)
        rc = grow(offers, boards.count, error);
    for (size_t i = 0; rc == 0 && i < boards.count; i++)
        rc = add_board(offers, job, &boards.pairs[i], repo);
    if (rc == 0 && boards.count > 0)
        rc = xv_kv_read(agent->kv, &call, &claims, error, "c/%s/", job->job.id);
    if (rc == 0 && boards.count > 0)
        rc = xv_kv_read(agent->kv, &call, &done, error, "d/%s/", job->job.id);
    if (rc == 0) {
        count_claims(agent, offers, &claims);
        count_done(offers, &done);
    }
    xv_kv_list_free(&boards);
    xv_kv_list_free(&claims);
    xv_kv_list_free(&done);
    return rc;
}

static bool has_board(const struct xv_offers *offers, const struct xv_view_job *job,
                      const struct xv_task_record *task)
{
    for (size_t i = 0; i < offers->count; i++) {
        if (offers->offers[i].job == job && strcmp(offers->offers[i].subject, task->subject) == 0)
            return true;
    }
    return false;
}

static void add_task(struct xv_offers *offers, const struct xv_task_record *task)
{
    size_t i;
    json_t *disk;
    json_array_foreach(task->disks, i, disk)
    {
        size_t sr = xv_reach_sr(&offers->reach, xv_member_text(disk, "sr"));
        if (sr != XV_SCHED_NONE)
            offers->sr_bytes[sr] += (uint64_t)xv_member_number(disk, "bytes");
    }
}

/* What is left of each SR: of boards, and of the tasks of backups that have none yet. */
static void count_bytes(struct xv_offers *offers, const struct xv_view *view)
{
    for (size_t i = 0; i < offers->count; i++) {
        if (offers->boards[i].sr != XV_SCHED_NONE)
            offers->sr_bytes[offers->boards[i].sr] += offers->boards[i].bytes_left;
    }
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        bool runs = strcmp(job->job.type, "backup") == 0 && xv_view_hold(job)[0] == '\0' &&
                    job->job.control == XV_CONTROL_RUN;
        for (size_t j = 0; runs && j < job->task_count; j++) {
            const struct xv_task_record *task = &job->tasks[j];
            if (!xv_task_has_ended(task->state) &&
                !(is_running(task) && has_board(offers, job, task)))
                add_task(offers, task);
        }
    }
    for (size_t i = 0; i < offers->count; i++) {
        struct xv_board *board = &offers->boards[i];
        board->sr_bytes = board->sr == XV_SCHED_NONE ? 0 : offers->sr_bytes[board->sr];
    }
}

/* Another's task that runs has boards, perhaps. */
static bool may_have_boards(const struct xv_agent *agent, const struct xv_view_job *job)
{
    if (strcmp(job->job.type, "backup") != 0 || xv_view_hold(job)[0] != '\0' ||
        job->job.control == XV_CONTROL_CANCEL_NOW)
        return false;
    for (size_t i = 0; i < job->task_count; i++) {
        if (is_running(&job->tasks[i]) && strcmp(job->tasks[i].owner, agent->name) != 0)
            return true;
    }
    return false;
}

static int prepare(struct xv_agent *agent, struct xv_offers *ret, xvsa_error **error)
{
    const struct xv_call limit = {.cancel = agent->cancel};
    const struct xv_call call = xv_call_within(&limit, REACH_MS);
    int rc = xv_reach_read(agent, &call, &ret->reach, error);
    if (rc != 0)
        return rc;
    ret->host_connections = calloc(ret->reach.site.host_count + 1, sizeof(uint32_t));
    ret->sr_transfers = calloc(ret->reach.site.sr_count + 1, sizeof(uint32_t));
    ret->sr_bytes = calloc(ret->reach.site.sr_count + 1, sizeof(uint64_t));
    ret->proxy_disks = calloc(ret->reach.count + 1, sizeof(uint32_t));
    if (ret->host_connections == NULL || ret->sr_transfers == NULL || ret->sr_bytes == NULL ||
        ret->proxy_disks == NULL)
        return xv_fail_memory(error);
    return 0;
}

int xv_offers_read(struct xv_agent *agent, const struct xv_view *view, struct xv_offers *ret,
                   xvsa_error **error)
{
    bool any = false;
    int rc = 0;
    *ret = (struct xv_offers){0};
    for (size_t i = 0; i < view->job_count && !any; i++)
        any = may_have_boards(agent, &view->jobs[i]);
    if (!any)
        return 0;
    rc = prepare(agent, ret, error);
    for (size_t i = 0; rc == 0 && i < view->job_count; i++) {
        if (may_have_boards(agent, &view->jobs[i]))
            rc = read_job(agent, ret, &view->jobs[i], error);
    }
    if (rc == 0)
        count_bytes(ret, view);
    if (rc != 0)
        xv_offers_free(ret);
    return rc;
}

void xv_offers_free(struct xv_offers *offers)
{
    for (size_t i = 0; i < offers->count; i++)
        json_decref(offers->offers[i].json);
    free(offers->offers);
    free(offers->boards);
    free(offers->host_connections);
    free(offers->sr_transfers);
    free(offers->sr_bytes);
    free(offers->proxy_disks);
    xv_reach_free(&offers->reach);
    *offers = (struct xv_offers){0};
}
