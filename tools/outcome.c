/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Plans, events and reports for people.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const char *name_of(const json_t *object, const char *key)
{
    return text_of(json_object_get(object, key), "name");
}

static void print_plan_disks(const json_t *disks)
{
    static const char *const titles[] = {"  DISK", "NAME", ">SIZE", "STORAGE",
                                         "ACTION", "MODE", "PROXY", "TRANSPORT"};
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *disk;
    json_array_foreach(disks, index, disk)
    {
        char size[TEXT_SIZE], device[TEXT_SIZE];
        snprintf(device, sizeof device, "  %s", text_of(disk, "device"));
        const char *const cells[] = {device,
                                     text_of(disk, "name"),
                                     size_text((uint64_t)number_of(disk, "size"), size),
                                     name_of(disk, "sr"),
                                     text_of(disk, "action"),
                                     text_of(disk, "mode"),
                                     text_of(disk, "proxy"),
                                     text_of(disk, "transport")};
        table_add(table, cells);
    }
    table_print(table);
}

static void print_named_reasons(const json_t *list, const char *kind)
{
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        char indent[64];
        snprintf(indent, sizeof indent, "  %s %s: ", kind, text_of(item, "device"));
        print_reasons(json_object_get(item, "reasons"), indent);
    }
}

static void print_interfaces(const json_t *vifs)
{
    size_t index;
    json_t *vif;
    json_array_foreach(vifs, index, vif)
    {
        const char *network = name_of(vif, "network");
        const char *mac = text_of(vif, "mac");
        say("  interface %s: %s, MAC address %s\n", text_of(vif, "device"),
            network[0] != '\0' ? network : "left out", mac[0] != '\0' ? mac : "new");
    }
}

static void print_helping_hosts(const json_t *hosts)
{
    size_t index;
    json_t *host;
    json_array_foreach(hosts, index, host)
        say("  a proxy on host %s (%s) would help\n", text_of(host, "name"), text_of(host, "uuid"));
}

static void print_plan_vm(const json_t *vm)
{
    char taken[TEXT_SIZE];
    const json_t *base = json_object_get(vm, "base");
    const json_t *point = json_object_get(vm, "point");
    const json_t *error = json_object_get(vm, "error");
    say("\n%s (%s): %s", text_of(vm, "name"), text_of(vm, "uuid"), text_of(vm, "action"));
    if (json_is_object(base))
        say(", on top of %.12s of %s", text_of(base, "id"),
            instant_text(number_of(base, "taken_ms"), taken));
    if (json_is_object(point))
        say(" %.12s of %s as \"%s\"", text_of(point, "id"),
            instant_text(number_of(point, "taken_ms"), taken), text_of(vm, "new_name"));
    say("\n");
    if (json_is_object(error))
        say("  %s\n", text_of(error, "message"));
    print_helping_hosts(json_object_get(vm, "helping_hosts"));
    print_plan_disks(json_object_get(vm, "disks"));
    print_interfaces(json_object_get(vm, "vifs"));
    print_reasons(json_object_get(vm, "reasons"), "  ");
    print_named_reasons(json_object_get(vm, "disks"), "disk");
    print_named_reasons(json_object_get(vm, "vifs"), "interface");
}

void print_plan(const json_t *plan)
{
    const json_t *summary = json_object_get(plan, "summary");
    char bytes[TEXT_SIZE];
    say("Plan of a %s: %lld VMs, %lld refused, disks of %s\n", text_of(plan, "type"),
        (long long)number_of(summary, "vms"), (long long)number_of(summary, "refused"),
        size_text((uint64_t)number_of(summary, "bytes"), bytes));
    size_t index;
    json_t *item;
    json_array_foreach(json_object_get(plan, "proxies"), index, item) print_reach(item, index == 0);
    json_array_foreach(json_object_get(plan, "vms"), index, item) print_plan_vm(item);
}

/* Message of the error of a VM or a disk, with what the pool said. */
static void print_error(const json_t *owner)
{
    const json_t *error = json_object_get(owner, "error");
    if (json_is_object(error))
        say("  failed: %s (%s)\n", text_of(error, "message"), text_of(error, "code"));
}

/* Bytes of a disk that were moved in a way, "" when the report does not know it. */
static const char *moved_text(const json_t *disk, const char *key, char buffer[TEXT_SIZE])
{
    const json_t *bytes = json_object_get(disk, "bytes");
    if (json_object_get(bytes, key) == NULL)
        return "";
    return size_text((uint64_t)number_of(bytes, key), buffer);
}

static void print_report_disks(const json_t *disks)
{
    static const char *const titles[] = {"  DISK", "STATE", "MODE",    "PROXY",   "TRANSPORT",
                                         ">SIZE",  ">READ", ">STORED", ">WRITTEN"};
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *disk;
    json_array_foreach(disks, index, disk)
    {
        char device[TEXT_SIZE], size[TEXT_SIZE], read[TEXT_SIZE], stored[TEXT_SIZE];
        char written[TEXT_SIZE];
        snprintf(device, sizeof device, "  %s", text_of(disk, "device"));
        const char *const cells[] = {device,
                                     text_of(disk, "state"),
                                     text_of(disk, "mode"),
                                     text_of(disk, "proxy"),
                                     text_of(disk, "transport"),
                                     size_text((uint64_t)number_of(disk, "size"), size),
                                     moved_text(disk, "read", read),
                                     moved_text(disk, "stored", stored),
                                     moved_text(disk, "written", written)};
        table_add(table, cells);
    }
    table_print(table);
}

static void print_report_vm(const json_t *vm)
{
    const char *new_name = text_of(vm, "new_name");
    const char *point = text_of(json_object_get(vm, "point"), "id");
    say("\n%s (%s): %s", text_of(vm, "name"), text_of(vm, "uuid"), text_of(vm, "state"));
    if (new_name[0] != '\0')
        say(", now \"%s\" (%s)", new_name, text_of(vm, "new_uuid"));
    else if (point[0] != '\0')
        say(", restore point %s", point);
    say("\n");
    print_error(vm);
    print_report_disks(json_object_get(vm, "disks"));
    print_reasons(json_object_get(vm, "reasons"), "  ");
    print_named_reasons(json_object_get(vm, "disks"), "disk");
    print_named_reasons(json_object_get(vm, "vifs"), "interface");
}

static void print_verified(const json_t *report)
{
    const json_t *verified = json_object_get(report, "verified");
    char bytes[TEXT_SIZE];
    say("%lld restore points, %lld objects, %lld chunks, %s: %lld faults\n",
        (long long)number_of(verified, "points"), (long long)number_of(verified, "objects"),
        (long long)number_of(verified, "chunks"),
        size_text((uint64_t)number_of(verified, "bytes"), bytes),
        (long long)number_of(verified, "faults"));
    size_t index;
    json_t *fault;
    json_array_foreach(json_object_get(report, "faults"), index, fault)
        say("damaged: %s\n", text_of(fault, "message"));
}

void print_report(const json_t *report)
{
    const json_t *summary = json_object_get(report, "summary");
    char read[TEXT_SIZE], stored[TEXT_SIZE], took[TEXT_SIZE];
    duration_text(number_of(report, "ended_ms") - number_of(report, "started_ms"), took);
    say("%s %s, took %s", text_of(report, "type"), text_of(report, "state"), took);
    if (json_object_get(report, "verified") != NULL) {
        say("\n");
        print_verified(report);
        return;
    }
    say(": %s read, %s stored\n", size_text((uint64_t)number_of(summary, "bytes_read"), read),
        size_text((uint64_t)number_of(summary, "bytes_stored"), stored));
    size_t index;
    json_t *vm;
    json_array_foreach(json_object_get(report, "vms"), index, vm) print_report_vm(vm);
}

static char *reason_line(const json_t *event, const char *vm)
{
    const json_t *reason = json_object_get(event, "reason");
    const char *disk = text_of(event, "disk");
    const char *detail = text_of(reason, "detail");
    if (strcmp(text_of(reason, "severity"), "info") == 0)
        return NULL; /* the report has it */
    char *line = NULL;
    int length = asprintf(&line, "%s%s%s: %s: %s: %s%s%s", vm, disk[0] != '\0' ? " disk " : "",
                          disk, text_of(reason, "severity"), text_of(reason, "code"),
                          text_of(reason, "text"), detail[0] != '\0' ? ": " : "", detail);
    return length < 0 ? NULL : line;
}

static char *fault_line(const json_t *fault)
{
    char *line = NULL;
    return asprintf(&line, "damaged: %s", text_of(fault, "message")) < 0 ? NULL : line;
}

char *event_line(const json_t *event)
{
    const char *type = text_of(event, "type");
    const char *vm = text_of(json_object_get(event, "vm"), "name");
    if (strcmp(type, "reason") == 0)
        return reason_line(event, vm);
    if (strcmp(type, "fault") == 0)
        return fault_line(json_object_get(event, "fault"));
    if (strcmp(type, "vm_started") != 0 && strcmp(type, "vm_finished") != 0)
        return NULL;
    const char *state = text_of(event, "state");
    const char *message = text_of(json_object_get(event, "error"), "message");
    char *line = NULL;
    int length = asprintf(&line, "%s: %s%s%s", vm, state[0] != '\0' ? state : "started",
                          message[0] != '\0' ? ": " : "", message);
    return length < 0 ? NULL : line;
}
