/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Findings about a pool, advice, and every disk, as tables.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "job/drawing.h"

#define LIST_MOST 8 /* names that are shown without unfolding */

static void add_name(struct xv_page *page, const char *name)
{
    xv_page_format(page, "<bdi>");
    xv_page_text(page, name);
    xv_page_format(page, "</bdi>");
}

/* An element is a name or an object that has one. */
static const char *name_at(const json_t *array, size_t index)
{
    const json_t *item = json_array_get(array, index);
    return json_is_string(item) ? json_string_value(item) : xv_drawn_name(item);
}

static void add_names(struct xv_page *page, const json_t *array, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        xv_page_format(page, "%s", i > first ? ", " : "");
        add_name(page, name_at(array, i));
    }
}

/* A long list shows its beginning and unfolds. */
static void add_list(struct xv_page *page, const json_t *array)
{
    size_t count = json_array_size(array);
    if (count <= LIST_MOST) {
        add_names(page, array, 0, count);
        return;
    }
    xv_page_format(page, "<details><summary>%zu: ", count);
    add_names(page, array, 0, LIST_MOST / 2);
    xv_page_format(page, " and others</summary>");
    add_names(page, array, LIST_MOST / 2, count);
    xv_page_format(page, "</details>");
}

/* A long list shows its beginning only; the table of storage has all of it. */
static void add_short_list(struct xv_page *page, const json_t *array)
{
    size_t count = json_array_size(array);
    size_t shown = count <= LIST_MOST ? count : LIST_MOST / 2;
    add_names(page, array, 0, shown);
    if (shown < count)
        xv_page_format(page, " and %zu others", count - shown);
}

static void add_state(struct xv_page *page, const char *state)
{
    static const char *const states[][2] = {
        {"covered", "covered"},
        {"one-host", "one host"},
        {"one-proxy", "one proxy"},
        {"unreached", "unreached"},
    };
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(state, states[i][0]) != 0)
            continue;
        xv_page_format(page,
                       "<span class=\"state %s\"><svg xmlns=\"http://www.w3.org/2000/svg\" "
                       "width=\"10\" height=\"10\" viewBox=\"-1 -1 10 10\">",
                       states[i][0]);
        xv_drawing_add_mark(page, state, 0, 0);
        xv_page_format(page, "</svg> %s</span>", states[i][1]);
    }
}

static void begin_table(struct xv_page *page, const char *class, const char *const *titles,
                        size_t count)
{
    xv_page_format(page, "<table class=\"%s\"><thead><tr>", class);
    for (size_t i = 0; i < count; i++)
        xv_page_format(page, "<th scope=\"col\">%s</th>", titles[i]);
    xv_page_format(page, "</tr></thead><tbody>\n");
}

static void end_table(struct xv_page *page)
{
    xv_page_format(page, "</tbody></table>\n");
}

static bool is_unreached(const json_t *disk)
{
    return !json_is_true(json_object_get(disk, "skipped")) &&
           json_array_size(json_object_get(disk, "routes")) == 0;
}

/* sr NULL: disks whose storage the pool does not tell. */
static bool misses(const json_t *vm, const json_t *sr)
{
    const json_t *disks = json_object_get(vm, "disks");
    for (size_t i = 0; i < json_array_size(disks); i++) {
        const json_t *disk = json_array_get(disks, i);
        const json_t *where = json_object_get(disk, "sr");
        if (is_unreached(disk) &&
            strcmp(xv_drawn_text(where, "uuid"), xv_drawn_text(sr, "uuid")) == 0)
            return true;
    }
    return false;
}

/* VMs that nobody reaches because of a storage repository. */
static size_t add_unreached(struct xv_page *page, const json_t *vms, const json_t *sr)
{
    const json_t *hosts = json_object_get(sr, "hosts");
    json_t *missing = json_array();
    for (size_t i = 0; i < json_array_size(vms); i++) {
        if (misses(json_array_get(vms, i), sr))
            json_array_append(missing, json_array_get(vms, i));
    }
    size_t count = json_array_size(missing);
    if (count > 0) {
        xv_page_format(page, "<tr><td>");
        add_state(page, "unreached");
        xv_page_format(page, "</td><td>No proxy reaches ");
        add_name(page, sr == NULL ? "storage that the pool does not tell" : xv_drawn_name(sr));
        xv_page_format(page, json_array_size(hosts) == 0 ? "; it is attached to no live host"
                                                         : "; it is attached to ");
        add_list(page, hosts);
        xv_page_format(page, "</td><td>");
        add_list(page, missing);
        xv_page_format(page, "</td></tr>\n");
    }
    json_decref(missing);
    return count;
}

static size_t add_losses(struct xv_page *page, const json_t *losses, const char *kind,
                         const char *state)
{
    for (size_t i = 0; i < json_array_size(losses); i++) {
        const json_t *loss = json_array_get(losses, i);
        bool is_proxy = json_object_get(loss, "proxy") != NULL;
        xv_page_format(page, "<tr><td>");
        add_state(page, state);
        xv_page_format(page, "</td><td>Loss of %s ", kind);
        add_name(page, is_proxy ? xv_drawn_text(loss, "proxy") : xv_drawn_name(loss));
        xv_page_format(page, " would leave unreached</td><td>");
        add_list(page, json_object_get(loss, "vms"));
        xv_page_format(page, "</td></tr>\n");
    }
    return json_array_size(losses);
}

/* VMs whose disks no single proxy moves. */
static size_t add_split(struct xv_page *page, const json_t *vms)
{
    json_t *split = json_array();
    for (size_t i = 0; i < json_array_size(vms); i++) {
        json_t *vm = json_array_get(vms, i);
        if (strcmp(xv_drawn_text(vm, "state"), "unreached") != 0 &&
            json_integer_value(json_object_get(vm, "whole")) == 0 &&
            json_array_size(json_object_get(vm, "disks")) > 0)
            json_array_append(split, vm);
    }
    size_t count = json_array_size(split);
    if (count > 0) {
        xv_page_format(page, "<tr><td></td><td>No single proxy reaches every disk; several share "
                             "the work</td><td>");
        add_list(page, split);
        xv_page_format(page, "</td></tr>\n");
    }
    json_decref(split);
    return count;
}

static size_t add_idle_proxies(struct xv_page *page, const json_t *proxies)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(proxies); i++) {
        const json_t *proxy = json_array_get(proxies, i);
        const json_t *reasons = json_object_get(proxy, "reasons");
        for (size_t j = 0; j < json_array_size(reasons); j++) {
            xv_page_format(page, "<tr><td></td><td>Proxy ");
            add_name(page, xv_drawn_text(proxy, "proxy"));
            xv_page_format(page, " reaches nothing: ");
            xv_page_text(page, xv_drawn_text(json_array_get(reasons, j), "text"));
            xv_page_format(page, "</td><td></td></tr>\n");
            count++;
        }
    }
    return count;
}

static void add_findings(struct xv_page *page, const json_t *pool)
{
    static const char *const titles[] = {"State", "Finding", "VMs"};
    const json_t *vms = json_object_get(pool, "vms");
    const json_t *losses = json_object_get(pool, "losses");
    const json_t *omissions = json_object_get(pool, "omissions");
    xv_page_format(page, "<h3>Findings</h3>\n");
    begin_table(page, "findings", titles, 3);
    const json_t *srs = json_object_get(pool, "srs");
    size_t count = add_unreached(page, vms, NULL);
    for (size_t i = 0; i < json_array_size(srs); i++)
        count += add_unreached(page, vms, json_array_get(srs, i));
    count += add_losses(page, json_object_get(losses, "proxies"), "proxy", "one-proxy");
    count += add_losses(page, json_object_get(losses, "hosts"), "host", "one-host");
    count += add_split(page, vms);
    count += add_idle_proxies(page, json_object_get(pool, "proxies"));
    if (json_array_size(omissions) > 0) {
        xv_page_format(page,
                       "<tr><td></td><td>%zu objects of the pool could not be read and are "
                       "missing here</td><td></td></tr>\n",
                       json_array_size(omissions));
        count++;
    }
    if (count == 0) {
        xv_page_format(page, "<tr><td>");
        add_state(page, "covered");
        xv_page_format(page, "</td><td>Every VM is reached, and stays so whichever single proxy or "
                             "host is lost</td><td></td></tr>\n");
    }
    end_table(page);
}

static void add_places(struct xv_page *page, const json_t *advice)
{
    const json_t *add = json_object_get(advice, "add");
    int64_t proxies = json_integer_value(json_object_get(advice, "proxies"));
    int64_t least = json_integer_value(json_object_get(advice, "at_least"));
    for (size_t i = 0; i < json_array_size(add); i++) {
        const json_t *place = json_array_get(add, i);
        xv_page_format(page, "%s%lld on ", i > 0 ? ", " : "",
                       (long long)json_integer_value(json_object_get(place, "proxies")));
        add_name(page, xv_drawn_name(place));
    }
    if (proxies == 0)
        xv_page_format(page, "%s",
                       json_array_size(json_object_get(advice, "incurable")) == 0
                           ? "nothing: it is so now"
                           : "no further proxy helps");
    else if (json_is_true(json_object_get(advice, "exact")))
        xv_page_format(page, " <span class=\"note\">(%lld in all, the fewest possible)</span>",
                       (long long)proxies);
    else
        xv_page_format(page, " <span class=\"note\">(%lld in all; at least %lld are needed)</span>",
                       (long long)proxies, (long long)least);
}

static void add_advice(struct xv_page *page, const json_t *pool)
{
    static const char *const titles[] = {"So that", "Proxies to add", "VMs that gain",
                                         "VMs that no further proxy helps"};
    static const char *const goals[][3] = {
        {"reach", "every VM is reached", "their storage is attached to no live host"},
        {"proxy-loss", "and stays so when any one proxy is lost",
         "their storage is attached to no live host"},
        {"host-loss", "and when any one host is lost",
         "their storage is attached to one host at most: shared storage would help"},
    };
    const json_t *list = json_object_get(pool, "advice");
    xv_page_format(page, "<h3>Advice</h3>\n");
    begin_table(page, "advice", titles, 4);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *advice = json_array_get(list, i);
        const json_t *incurable = json_object_get(advice, "incurable");
        for (size_t j = 0; j < 3; j++) {
            if (strcmp(xv_drawn_text(advice, "goal"), goals[j][0]) != 0)
                continue;
            xv_page_format(page, "<tr><td>%s</td><td>", goals[j][1]);
            add_places(page, advice);
            xv_page_format(page, "</td><td>");
            add_list(page, json_object_get(advice, "cured"));
            xv_page_format(page, "</td><td>");
            add_list(page, incurable);
            if (json_array_size(incurable) > 0)
                xv_page_format(page, " <span class=\"note\">(%s)</span>", goals[j][2]);
            xv_page_format(page, "</td></tr>\n");
        }
    }
    end_table(page);
}

static void add_size(struct xv_page *page, const json_t *disk)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)json_integer_value(json_object_get(disk, "size"));
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    xv_page_format(page, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void add_routes(struct xv_page *page, const json_t *disk)
{
    static const char *const tiers[][2] = {
        {"host", "on the VM's own host"},
        {"sr", "with the storage attached"},
        {"network", "over the network"},
    };
    const json_t *routes = json_object_get(disk, "routes");
    if (json_is_true(json_object_get(disk, "skipped"))) {
        const json_t *reason = json_array_get(json_object_get(disk, "reasons"), 0);
        xv_page_format(page, "left out: ");
        xv_page_text(page, xv_drawn_text(reason, "text"));
        return;
    }
    if (json_array_size(routes) == 0)
        xv_page_format(page, "nobody");
    for (size_t i = 0; i < json_array_size(routes); i++) {
        const json_t *route = json_array_get(routes, i);
        xv_page_format(page, "%s", i > 0 ? "; " : "");
        add_short_list(page, json_object_get(route, "proxies"));
        xv_page_format(page, " <span class=\"note\">(");
        for (size_t j = 0; j < 3; j++) {
            if (strcmp(xv_drawn_text(route, "tier"), tiers[j][0]) == 0)
                xv_page_format(page, "%s: ", tiers[j][1]);
        }
        const json_t *transports = json_object_get(route, "transports");
        for (size_t j = 0; j < json_array_size(transports); j++) {
            xv_page_format(page, "%s", j > 0 ? ", " : "");
            xv_page_text(page, name_at(transports, j));
        }
        xv_page_format(page, ")</span>");
    }
}

static void add_disk_row(struct xv_page *page, const json_t *vm, const json_t *disk, bool first)
{
    const json_t *host = json_object_get(vm, "host");
    xv_page_format(page, "<tr%s><td>", first ? " class=\"first\"" : "");
    if (first)
        add_name(page, xv_drawn_name(vm));
    xv_page_format(page, "</td><td>");
    if (first)
        add_state(page, xv_drawn_text(vm, "state"));
    xv_page_format(page, "</td><td>");
    if (first && json_is_object(host))
        add_name(page, xv_drawn_name(host));
    xv_page_format(page, "</td><td>");
    if (disk != NULL) {
        add_name(page, xv_drawn_text(disk, "device"));
        xv_page_format(page, "</td><td class=\"number\">");
        add_size(page, disk);
        xv_page_format(page, "</td><td>");
        add_name(page, xv_drawn_name(json_object_get(disk, "sr")));
        xv_page_format(page, "</td><td>");
        add_routes(page, disk);
    } else {
        xv_page_format(page, "</td><td></td><td></td><td>no disks: any proxy will do");
    }
    xv_page_format(page, "</td></tr>\n");
}

static void add_disks(struct xv_page *page, const json_t *pool)
{
    static const char *const titles[] = {
        "VM", "State", "Runs on", "Disk", "Size", "Storage", "Proxies that reach it"};
    const json_t *vms = json_object_get(pool, "vms");
    xv_page_format(page, "<details class=\"all\"><summary>Every VM and disk (%zu VMs)</summary>\n",
                   json_array_size(vms));
    begin_table(page, "disks", titles, 7);
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i);
        const json_t *disks = json_object_get(vm, "disks");
        for (size_t j = 0; j == 0 || j < json_array_size(disks); j++)
            add_disk_row(page, vm, json_array_get(disks, j), j == 0);
    }
    end_table(page);
    xv_page_format(page, "</details>\n");
}

static void add_storage(struct xv_page *page, const json_t *pool)
{
    static const char *const titles[] = {"Storage", "State", "Type",
                                         "Disks",   "Hosts", "Proxies that reach it"};
    const json_t *srs = json_object_get(pool, "srs");
    xv_page_format(page,
                   "<details class=\"all\"><summary>Every storage repository (%zu)</summary>\n",
                   json_array_size(srs));
    begin_table(page, "storage", titles, 6);
    for (size_t i = 0; i < json_array_size(srs); i++) {
        const json_t *sr = json_array_get(srs, i);
        xv_page_format(page, "<tr><td>");
        add_name(page, xv_drawn_name(sr));
        xv_page_format(page, "</td><td>");
        add_state(page, xv_drawn_text(sr, "state"));
        xv_page_format(page, "</td><td>");
        xv_page_text(page, xv_drawn_text(sr, "type"));
        xv_page_format(page, "</td><td class=\"number\">%lld</td><td>",
                       (long long)json_integer_value(json_object_get(sr, "disks")));
        add_list(page, json_object_get(sr, "hosts"));
        xv_page_format(page, "</td><td>");
        add_list(page, json_object_get(sr, "proxies"));
        xv_page_format(page, "</td></tr>\n");
    }
    end_table(page);
    xv_page_format(page, "</details>\n");
}

void xv_drawing_add_tables(struct xv_page *page, const json_t *pool)
{
    xv_page_format(page, "<section><h2>");
    add_name(page, xv_drawn_name(pool));
    xv_page_format(page, " <span class=\"note\">");
    xv_page_text(page, xv_drawn_text(pool, "uuid"));
    xv_page_format(page, "</span></h2>\n");
    add_findings(page, pool);
    add_advice(page, pool);
    add_storage(page, pool);
    add_disks(page, pool);
    xv_page_format(page, "</section>\n");
}
