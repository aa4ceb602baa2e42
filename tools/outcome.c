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
