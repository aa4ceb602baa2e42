/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Documents of a site for people.
 */
#include <stdio.h>
#include <string.h>

#include "cli.h"

static void print_pools(const json_t *site)
{
    static const char *const titles[] = {"POOL", "NAME", "COORDINATOR", ">TERM"};
    struct table *table = table_new(titles, 4);
    size_t i;
    json_t *pool;
    json_array_foreach(json_object_get(site, "pools"), i, pool)
    {
        char term[TEXT_SIZE];
        snprintf(term, sizeof term, "%lld", (long long)number_of(pool, "term"));
        const char *const cells[] = {text_of(pool, "uuid"), text_of(pool, "name"),
                                     text_of(pool, "coordinator"), term};
        table_add(table, cells);
    }
    table_print(table);
}

void print_site(const json_t *site)
{
    static const char *const titles[] = {"MEMBER", "POOL", "VM", "STATE", ">DISKS", "ADDRESS"};
    print_pools(site);
    say("\n");
    struct table *table = table_new(titles, 6);
    size_t i;
    json_t *member;
    json_array_foreach(json_object_get(site, "members"), i, member)
    {
        char disks[TEXT_SIZE];
        snprintf(disks, sizeof disks, "%lld", (long long)number_of(member, "max_disks"));
        bool away = json_is_false(json_object_get(member, "reaches_pool"));
        const char *state = is_true(member, "draining")      ? "draining"
                            : away                           ? "no pool"
                            : is_true(member, "coordinator") ? "coordinator"
                                                             : "joined";
        const char *const cells[] = {text_of(member, "name"),
                                     text_of(member, "pool_name"),
                                     text_of(member, "vm_uuid"),
                                     state,
                                     disks,
                                     text_of(member, "address")};
        table_add(table, cells);
    }
    table_print(table);
}

void print_site_jobs(const json_t *jobs)
{
    static const char *const titles[] = {"JOB",       "TYPE", "NAME",  "STATE",
                                         "SUBMITTED", ">VMS", ">DONE", ">PRIORITY"};
    struct table *table = table_new(titles, 8);
    size_t i;
    json_t *job;
    json_array_foreach(jobs, i, job)
    {
        char submitted[TEXT_SIZE], vms[TEXT_SIZE], done[TEXT_SIZE], priority[TEXT_SIZE];
        const json_t *summary = json_object_get(job, "summary");
        snprintf(vms, sizeof vms, "%lld", (long long)number_of(summary, "vms"));
        snprintf(done, sizeof done, "%lld", (long long)number_of(summary, "succeeded"));
        snprintf(priority, sizeof priority, "%lld", (long long)number_of(job, "priority"));
        bool known = json_is_object(summary);
        const char *const cells[] = {text_of(job, "id"),
                                     text_of(job, "type"),
                                     text_of(job, "name"),
                                     text_of(job, "state"),
                                     instant_text(number_of(job, "submitted_ms"), submitted),
                                     known ? vms : "",
                                     known ? done : "",
                                     priority};
        table_add(table, cells);
    }
    table_print(table);
}

static void print_error(const json_t *error, const char *indent)
{
    if (json_is_object(error))
        say("%s%s: %s\n", indent, text_of(error, "code"), text_of(error, "message"));
}

static void print_disk(const json_t *disk)
{
    char size[TEXT_SIZE];
    say("    disk %s, %s, %s", text_of(disk, "device"), text_of(disk, "name"),
        size_text((uint64_t)number_of(disk, "size"), size));
    if (text_of(disk, "state")[0] != '\0')
        say(", %s", text_of(disk, "state"));
    size_t i;
    json_t *mover;
    json_array_foreach(json_object_get(disk, "movers"), i, mover)
        say("%s%s %s", i == 0 ? ", moved by " : " and ", text_of(mover, "proxy"),
            size_text((uint64_t)number_of(mover, "bytes"), size));
    say("\n");
    print_reasons(json_object_get(disk, "reasons"), "      ");
}

static void print_task(const json_t *vm)
{
    size_t i;
    json_t *disk;
    say("  %s (%s): %s", text_of(vm, "name"), text_of(vm, "uuid"), text_of(vm, "state"));
    if (text_of(vm, "owner")[0] != '\0')
        say(", owned by %s, attempt %lld", text_of(vm, "owner"),
            (long long)number_of(vm, "attempt"));
    const json_t *progress = json_object_get(vm, "progress");
    char done[TEXT_SIZE], total[TEXT_SIZE];
    if (json_is_object(progress))
        say(", %s of %s", size_text((uint64_t)number_of(progress, "bytes_done"), done),
            size_text((uint64_t)number_of(progress, "bytes_total"), total));
    say("\n");
    print_error(json_object_get(vm, "error"), "    ");
    print_reasons(json_object_get(vm, "reasons"), "    ");
    json_array_foreach(json_object_get(vm, "disks"), i, disk) print_disk(disk);
}

void print_site_job(const json_t *job)
{
    size_t i;
    json_t *item;
    char text[TEXT_SIZE];
    say("Job %s, %s%s%s: %s\n", text_of(job, "id"), text_of(job, "type"),
        text_of(job, "name")[0] == '\0' ? "" : " ", text_of(job, "name"), text_of(job, "state"));
    say("Submitted %s", instant_text(number_of(job, "submitted_ms"), text));
    if (number_of(job, "started_ms") != 0)
        say(", started %s", instant_text(number_of(job, "started_ms"), text));
    if (number_of(job, "ended_ms") != 0)
        say(", ended %s", instant_text(number_of(job, "ended_ms"), text));
    say("\n");
    print_error(json_object_get(job, "error"), "");
    json_array_foreach(json_object_get(job, "parts"), i, item)
    {
        const json_t *pool = json_object_get(item, "pool");
        say("Pool %s (%s): %s\n", text_of(pool, "name"), text_of(pool, "uuid"),
            text_of(item, "state"));
        print_error(json_object_get(item, "error"), "  ");
    }
    json_array_foreach(json_object_get(job, "vms"), i, item) print_task(item);
}
