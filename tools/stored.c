/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Restore points and jobs for people.
 */
#include <stdio.h>
#include <string.h>

#include "cli.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

void print_points(const json_t *points)
{
    static const char *const titles[] = {"POINT",  "TAKEN", "VM",     "VM UUID",
                                         ">DISKS", ">SIZE", ">STORED"};
    if (json_array_size(points) == 0) {
        say("no restore points\n");
        return;
    }
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *point;
    json_array_foreach(points, index, point)
    {
        char taken[TEXT_SIZE], size[TEXT_SIZE], disks[TEXT_SIZE], stored[TEXT_SIZE];
        const json_t *vm = json_object_get(point, "vm");
        snprintf(disks, sizeof disks, "%lld", (long long)number_of(point, "disk_count"));
        const char *const cells[] = {text_of(point, "id"),
                                     instant_text(number_of(point, "taken_ms"), taken),
                                     text_of(vm, "name"),
                                     text_of(vm, "uuid"),
                                     disks,
                                     size_text((uint64_t)number_of(point, "size"), size),
                                     size_text((uint64_t)number_of(point, "bytes_stored"), stored)};
        table_add(table, cells);
    }
    table_print(table);
}

void print_point(const json_t *point)
{
    static const char *const titles[] = {"DISK", "NAME", "VDI", ">SIZE", ">READ", ">STORED"};
    char taken[TEXT_SIZE];
    const json_t *vm = json_object_get(point, "vm");
    say("Restore point %s\nVM %s (%s)\nTaken %s\n\n", text_of(point, "id"), text_of(vm, "name"),
        text_of(vm, "uuid"), instant_text(number_of(point, "taken_ms"), taken));
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *disk;
    json_array_foreach(json_object_get(point, "disks"), index, disk)
    {
        char size[TEXT_SIZE], read[TEXT_SIZE], stored[TEXT_SIZE];
        const json_t *bytes = json_object_get(disk, "bytes");
        const char *const cells[] = {text_of(disk, "device"),
                                     text_of(json_object_get(disk, "metadata"), "name"),
                                     text_of(disk, "key"),
                                     size_text((uint64_t)number_of(disk, "size"), size),
                                     size_text((uint64_t)number_of(bytes, "read"), read),
                                     size_text((uint64_t)number_of(bytes, "stored"), stored)};
        table_add(table, cells);
    }
    table_print(table);
}

void print_jobs(const json_t *jobs)
{
    static const char *const titles[] = {"JOB", "TYPE", "NAME", "STATE", "STARTED", ">TOOK"};
    if (json_array_size(jobs) == 0) {
        say("no jobs\n");
        return;
    }
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *job;
    json_array_foreach(jobs, index, job)
    {
        char started[TEXT_SIZE], took[TEXT_SIZE] = "";
        int64_t begin = number_of(job, "started_ms"), end = number_of(job, "ended_ms");
        if (end >= begin && end > 0)
            duration_text(end - begin, took);
        const char *const cells[] = {text_of(job, "id"),           text_of(job, "type"),
                                     text_of(job, "name"),         text_of(job, "state"),
                                     instant_text(begin, started), took};
        table_add(table, cells);
    }
    table_print(table);
}
