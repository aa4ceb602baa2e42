/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reads a pool's inventory and prints a line of JSON about it, for tests/bench/inventory.
 *
 *     bench-inventory URL FINGERPRINT PASSWORD   (FINGERPRINT "-": plain HTTP)
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "xenapi/inventory.h"

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int fail(xvsa_error *error)
{
    fprintf(stderr, "bench-inventory: %s\n", error == NULL ? "?" : xvsa_error_message(error));
    xvsa_error_unref(error);
    return 1;
}

static int measure(struct xv_client *client)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    struct rusage usage;
    double wall = now(CLOCK_MONOTONIC);
    double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    struct xv_call call = xv_call_within(NULL, 300000);
    if (xv_inventory_read(client, &call, &all, &error) != 0)
        return fail(error);
    wall = now(CLOCK_MONOTONIC) - wall;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"wall_s\": %.3f, \"cpu_s\": %.3f, \"peak_rss_mib\": %.1f, \"hosts\": %zu, "
           "\"vms\": %zu, \"vdis\": %zu, \"vbds\": %zu}\n",
           wall, cpu, (double)usage.ru_maxrss / 1024, all->host_count, all->vm_count,
           all->vdi_count, all->vbd_count);
    xv_inventory_free(all);
    return 0;
}

int main(int argc, char **argv)
{
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    if (argc != 4)
        return 2;
    bool plain = strcmp(argv[2], "-") == 0;
    const char *url = argv[1];
    const char *fingerprint = argv[2];
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = argv[3],
                                        .fingerprints = plain ? NULL : &fingerprint,
                                        .fingerprint_count = plain ? 0 : 1,
                                        .flags = plain ? XVSA_POOL_ALLOW_PLAIN_HTTP : 0};
    struct xv_call call = xv_call_within(NULL, 60000);
    if (xv_client_open(&options, &call, &client, &error) != 0)
        return fail(error);
    int rc = measure(client);
    call = xv_call_within(NULL, 5000);
    if (xv_client_close(client, &call, &error) != 0)
        rc = fail(error);
    xv_client_free(client);
    return rc;
}
