/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inventories, restore points and jobs for people. Members that a document lacks print as "".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Name of the object with a uuid in a list; the uuid itself when it is not there. */
static const char *name_in(const json_t *list, const char *uuid)
{
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        if (strcmp(text_of(item, "uuid"), uuid) == 0)
            return text_of(item, "name");
    }
    return uuid;
}

static int compare_names(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left;
    const json_t *b = *(json_t *const *)right;
    int order = strcmp(text_of(a, "name"), text_of(b, "name"));
    return order != 0 ? order : strcmp(text_of(a, "uuid"), text_of(b, "uuid"));
}

static int compare_devices(const void *left, const void *right)
{
    const char *a = text_of(*(json_t *const *)left, "device");
    const char *b = text_of(*(json_t *const *)right, "device");
    size_t length = strlen(a), other = strlen(b);
    return length != other ? (length < other ? -1 : 1) : strcmp(a, b);
}

/* Sorts a list of objects; it stays as it is when memory lacks. */
static void sort_list(json_t *list, int (*compare)(const void *, const void *))
{
    size_t count = json_array_size(list);
    json_t **items = calloc(count + 1, sizeof(json_t *));
    if (items == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        items[i] = json_incref(json_array_get(list, i));
    qsort(items, count, sizeof(json_t *), compare);
    json_array_clear(list);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, items[i]);
    free(items);
}

static void print_hosts(const json_t *inventory)
{
    static const char *const titles[] = {"HOST", "UUID", "ADDRESS", "PRODUCT", "STATE"};
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *host;
    json_array_foreach(json_object_get(inventory, "hosts"), index, host)
    {
        const char *state = !is_true(host, "live")         ? "dead"
                            : !is_true(host, "enabled")    ? "disabled"
                            : is_true(host, "coordinator") ? "coordinator"
                                                           : "live";
        const char *const cells[] = {text_of(host, "name"), text_of(host, "uuid"),
                                     text_of(host, "address"), text_of(host, "product"), state};
        table_add(table, cells);
    }
    table_print(table);
}

static void print_srs(const json_t *inventory)
{
    static const char *const titles[] = {"STORAGE", "UUID", "TYPE", ">SIZE",
                                         ">USED",   "CBT",  "HOSTS"};
    const json_t *hosts = json_object_get(inventory, "hosts");
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *sr;
    json_array_foreach(json_object_get(inventory, "srs"), index, sr)
    {
        char size[TEXT_SIZE], used[TEXT_SIZE], reached[256] = "";
        size_t length = 0, position;
        json_t *host;
        json_array_foreach(json_object_get(sr, "hosts"), position, host)
        {
            int put = snprintf(reached + length, sizeof reached - length, "%s%s",
                               length > 0 ? ", " : "", name_in(hosts, json_string_value(host)));
            length += put > 0 && (size_t)put < sizeof reached - length ? (size_t)put : 0;
        }
        const char *const cells[] = {text_of(sr, "name"),
                                     text_of(sr, "uuid"),
                                     text_of(sr, "type"),
                                     size_text((uint64_t)number_of(sr, "physical_size"), size),
                                     size_text((uint64_t)number_of(sr, "physical_used"), used),
                                     is_true(sr, "supports_cbt") ? "yes" : "no",
                                     reached};
        table_add(table, cells);
    }
    table_print(table);
}

static void print_networks(const json_t *inventory)
{
    static const char *const titles[] = {"NETWORK", "UUID", "BRIDGE", "NBD"};
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *network;
    json_array_foreach(json_object_get(inventory, "networks"), index, network)
    {
        const char *const cells[] = {text_of(network, "name"), text_of(network, "uuid"),
                                     text_of(network, "bridge"), text_of(network, "nbd")};
        table_add(table, cells);
    }
    table_print(table);
}

static void print_vms(const json_t *inventory)
{
    static const char *const titles[] = {"VM",   "UUID",  "STATE",   "HOST",
                                         "DISK", ">SIZE", "STORAGE", "CBT"};
    const json_t *hosts = json_object_get(inventory, "hosts");
    const json_t *srs = json_object_get(inventory, "srs");
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *vm;
    json_array_foreach(json_object_get(inventory, "vms"), index, vm)
    {
        json_t *disks = json_object_get(vm, "disks");
        sort_list(disks, compare_devices);
        for (size_t i = 0; i == 0 || i < json_array_size(disks); i++) {
            const json_t *disk = json_array_get(disks, i);
            char size[TEXT_SIZE];
            const char *const cells[] = {
                i == 0 ? text_of(vm, "name") : "",
                i == 0 ? text_of(vm, "uuid") : "",
                i == 0 ? text_of(vm, "power_state") : "",
                i == 0 ? name_in(hosts, text_of(vm, "host")) : "",
                text_of(disk, "device"),
                disk != NULL ? size_text((uint64_t)number_of(disk, "size"), size) : "",
                name_in(srs, text_of(disk, "sr")),
                disk == NULL                   ? ""
                : is_true(disk, "cbt_enabled") ? "on"
                                               : "off"};
            table_add(table, cells);
        }
    }
    table_print(table);
}

void print_inventory(json_t *inventory)
{
    static const char *const lists[] = {"hosts", "srs", "networks", "vms"};
    for (size_t i = 0; i < COUNT(lists); i++)
        sort_list(json_object_get(inventory, lists[i]), compare_names);
    const json_t *pool = json_object_get(inventory, "pool");
    const char *name = text_of(pool, "name");
    say("Pool %s%s%s, API %lld.%lld, changed block tracking is %slicensed\n\n", name,
        name[0] != '\0' ? " " : "", text_of(pool, "uuid"), (long long)number_of(pool, "api_major"),
        (long long)number_of(pool, "api_minor"), is_true(pool, "cbt_licensed") ? "" : "not ");
    print_hosts(inventory);
    say("\n");
    print_srs(inventory);
    say("\n");
    print_networks(inventory);
    say("\n");
    print_vms(inventory);
    size_t index;
    json_t *proxy;
    json_array_foreach(json_object_get(inventory, "proxies"), index, proxy)
        print_reach(proxy, index == 0);
}

void print_reach(const json_t *reach, bool first)
{
    const json_t *host = json_object_get(reach, "host");
    say("%sProxy %s%s on %s reaches:", first ? "\n" : "", text_of(reach, "proxy"),
        is_true(reach, "coordinator") ? " (coordinator)" : "",
        json_is_object(host) ? text_of(host, "name") : "no live host");
    size_t index;
    json_t *sr;
    json_array_foreach(json_object_get(reach, "srs"), index, sr)
        say("%s %s", index > 0 ? "," : "", text_of(sr, "name"));
    say("%s\n", json_array_size(json_object_get(reach, "srs")) == 0 ? " nothing" : "");
    print_reasons(json_object_get(reach, "reasons"), "  ");
}

void print_reasons(const json_t *reasons, const char *indent)
{
    size_t index;
    json_t *reason;
    json_array_foreach(reasons, index, reason)
    {
        const char *detail = text_of(reason, "detail");
        say("%s%s: %s: %s%s%s\n", indent, text_of(reason, "severity"), text_of(reason, "code"),
            text_of(reason, "text"), detail[0] != '\0' ? ": " : "", detail);
    }
}
