/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Watches a pool and prints a line of JSON whenever a version of its live inventory grew, for test_live.py:
 * the versions, and who is where. Ends at the end of its input.
 *
 *     integration-watcher URL FINGERPRINT PASSWORD   (FINGERPRINT "-": plain HTTP)
 */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "xenapi/live.h"

static int fail(xvsa_error *error)
{
    fprintf(stderr, "%s\n", error == NULL ? "?" : xvsa_error_message(error));
    xvsa_error_unref(error);
    return 1;
}

static void on_log(void *user, int32_t level, const char *component, const char *message)
{
    (void)user;
    fprintf(stderr, "%d %s: %s\n", (int)level, component, message);
}

static json_t *hosts_of(const struct xv_inventory *all, const struct xv_sr *sr)
{
    json_t *hosts = json_array();
    for (size_t i = 0; i < all->host_count; i++) {
        if (xv_inventory_reaches(all, &all->hosts[i], sr))
            json_array_append_new(hosts, json_string(all->hosts[i].name));
    }
    return hosts;
}

static json_t *describe(const struct xv_inventory *all, struct xv_live_version version)
{
    json_t *hosts = json_object();
    json_t *srs = json_object();
    json_t *vms = json_object();
    for (size_t i = 0; i < all->host_count; i++) {
        const struct xv_host *host = &all->hosts[i];
        json_object_set_new(
            hosts, host->name,
            json_pack("{s:b, s:b}", "live", host->live, "coordinator", host->coordinator));
    }
    for (size_t i = 0; i < all->sr_count; i++)
        json_object_set_new(srs, all->srs[i].name,
                            json_pack("{s:b, s:o}", "shared", all->srs[i].shared, "hosts",
                                      hosts_of(all, &all->srs[i])));
    for (size_t i = 0; i < all->vm_count; i++) {
        const struct xv_vm *vm = &all->vms[i];
        if ((!vm->is_template || vm->is_snapshot) && !vm->is_control_domain)
            json_object_set_new(vms, vm->name,
                                json_pack("{s:s, s:s?, s:I}", "power_state", vm->power_state,
                                          "host",
                                          vm->resident_on == NULL ? NULL : vm->resident_on->name,
                                          "disks", (json_int_t)vm->vbd_count));
    }
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o}", "any", (json_int_t)version.any, "reach",
                     (json_int_t)version.reach, "generation", (json_int_t)all->generation, "hosts",
                     hosts, "srs", srs, "vms", vms);
}

static void print_state(struct xv_live *live, struct xv_live_watch *watch)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, 30000);
    struct xv_live_version version = xv_live_watch_take(watch);
    /* What the watch knows: no question to the pool. */
    if (xv_live_inventory(live, 3600000, &call, &all, &error) != 0) {
        fail(error);
        return;
    }
    json_t *json = describe(all, version);
    json_dumpf(json, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    putchar('\n');
    fflush(stdout);
    json_decref(json);
    xv_inventory_free(all);
}

static int watch_pool(struct xv_live *live)
{
    struct xv_live_watch *watch = NULL;
    xvsa_error *error = NULL;
    if (xv_live_watch_open(live, &watch, &error) != 0)
        return fail(error);
    for (;;) {
        struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                               {.fd = xv_live_watch_fd(watch), .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 || fds[0].revents != 0)
            break;
        if (fds[1].revents != 0)
            print_state(live, watch);
    }
    xv_live_watch_close(watch);
    return 0;
}

int main(int argc, char **argv)
{
    struct xv_client *client = NULL;
    struct xv_live *live = NULL;
    xvsa_error *error = NULL;
    if (argc != 4)
        return 2;
    bool plain = strcmp(argv[2], "-") == 0;
    const struct xv_env env = {.log = on_log, .log_level = XVSA_LOG_INFO};
    const char *url = argv[1];
    const char *fingerprint = argv[2];
    struct xv_client_options options = {.env = &env,
                                        .urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = argv[3],
                                        .fingerprints = plain ? NULL : &fingerprint,
                                        .fingerprint_count = plain ? 0 : 1,
                                        .flags = plain ? XVSA_POOL_ALLOW_PLAIN_HTTP : 0};
    struct xv_call call = xv_call_within(NULL, 60000);
    if (xv_client_open(&options, &call, &client, &error) != 0)
        return fail(error);
    int rc = xv_live_new(client, &live, &error) != 0 ? fail(error) : watch_pool(live);
    xv_live_free(live);
    call = xv_call_within(NULL, 5000);
    if (xv_client_close(client, &call, &error) != 0)
        rc = fail(error);
    xv_client_free(client);
    return rc;
}
