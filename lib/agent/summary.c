/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/summary.h"

#include "job/json.h"

static uint64_t count_of(const json_t *object, const char *name)
{
    int64_t number = xv_member_number(object, name);
    return number < 0 ? 0 : (uint64_t)number;
}

void xv_summary_add(struct xv_summary *summary, const struct xv_task_record *task,
                    const json_t *entry)
{
    size_t i;
    json_t *disk;
    summary->tasks[task->state]++;
    json_array_foreach(json_object_get(entry, "disks"), i, disk)
    {
        const json_t *bytes = json_object_get(disk, "bytes");
        if (task->state != XV_TASK_REFUSED)
            summary->bytes_total += count_of(disk, "size");
        summary->bytes_read += count_of(bytes, "read");
        summary->bytes_stored += count_of(bytes, "stored");
        summary->bytes_written += count_of(bytes, "written");
    }
}

void xv_summary_add_json(struct xv_summary *summary, const json_t *other)
{
    static const struct {
        const char *name;
        enum xv_task_state state;
    } counts[] = {{"succeeded", XV_TASK_SUCCEEDED}, {"failed", XV_TASK_FAILED},
                  {"refused", XV_TASK_REFUSED},     {"cancelled", XV_TASK_CANCELLED},
                  {"waiting", XV_TASK_PENDING},     {"running", XV_TASK_RUNNING},
                  {"parked", XV_TASK_PARKED}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        summary->tasks[counts[i].state] += count_of(other, counts[i].name);
    summary->bytes_total += count_of(other, "bytes_total");
    summary->bytes_read += count_of(other, "bytes_read");
    summary->bytes_stored += count_of(other, "bytes_stored");
    summary->bytes_written += count_of(other, "bytes_written");
}

json_t *xv_summary_to_json(const struct xv_summary *summary)
{
    const uint64_t *tasks = summary->tasks;
    uint64_t all = 0;
    for (size_t i = 0; i <= XV_TASK_CANCELLED; i++)
        all += tasks[i];
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "vms", xv_json_count(all),
        "waiting", xv_json_count(tasks[XV_TASK_PENDING]), "running",
        xv_json_count(tasks[XV_TASK_ASSIGNED] + tasks[XV_TASK_RUNNING]), "parked",
        xv_json_count(tasks[XV_TASK_PARKED]), "succeeded", xv_json_count(tasks[XV_TASK_SUCCEEDED]),
        "failed", xv_json_count(tasks[XV_TASK_FAILED]), "refused",
        xv_json_count(tasks[XV_TASK_REFUSED]), "cancelled", xv_json_count(tasks[XV_TASK_CANCELLED]),
        "bytes_total", xv_json_count(summary->bytes_total), "bytes_read",
        xv_json_count(summary->bytes_read), "bytes_stored", xv_json_count(summary->bytes_stored),
        "bytes_written", xv_json_count(summary->bytes_written));
}
