/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The simple deployment: one pool of two hosts with one shared storage repository, a proxy for each
 * host. Backs up every VM and prints the report.
 *
 *     single_pool URL CA-FILE PASSWORD-FILE FOLDER PASSPHRASE-FILE VM-1 VM-2
 *
 * FOLDER receives the repository and the state file. VM-1 and VM-2 are the uuids of the VMs that
 * carry the proxies, one on each host.
 */
#include <stdio.h>
#include <string.h>
#include <xvsa.h>

/* Everything the program holds; released in one place. */
struct handles {
    xvsa_context *context;
    xvsa_pool *pool;
    xvsa_proxy *proxies[2];
    xvsa_target *target;
    xvsa_repo *repo;
    xvsa_plan *plan;
    xvsa_job *job;
};

static void release(struct handles *h)
{
    xvsa_job_unref(h->job);
    xvsa_plan_unref(h->plan);
    xvsa_repo_unref(h->repo);
    xvsa_target_unref(h->target);
    xvsa_proxy_unref(h->proxies[0]);
    xvsa_proxy_unref(h->proxies[1]);
    if (h->pool != NULL)
        xvsa_pool_close(h->pool, NULL, NULL); /* logs out */
    xvsa_pool_unref(h->pool);
    xvsa_context_unref(h->context);
}

static int read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(line, size, file) == NULL) {
        perror(path);
        return -1;
    }
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    return 0;
}

/* A context keeps its state in a file, so that it can clean up after a crash. */
static int32_t start(struct handles *h, const char *folder, xvsa_error **error)
{
    char state[1024];
    xvsa_context_options options = XVSA_CONTEXT_OPTIONS_INIT;
    snprintf(state, sizeof state, "%s/state.db", folder);
    options.state_path = state;
    return xvsa_context_new(&options, &h->context, error);
}

/* Log in to the pool and give it two proxies; each moves the disks that its host reaches. */
static int32_t open_pool(struct handles *h, char **argv, const char *password, xvsa_error **error)
{
    const char *urls[] = {argv[1]};
    xvsa_pool_options options = XVSA_POOL_OPTIONS_INIT;
    options.urls = urls;
    options.url_count = 1;
    options.username = "root";
    options.password = password;
    options.ca_file = argv[2];
    int32_t code = xvsa_pool_open(h->context, &options, NULL, &h->pool, error);
    for (int i = 0; i < 2 && code == XVSA_OK; i++) {
        xvsa_proxy_options proxy = XVSA_PROXY_OPTIONS_INIT;
        proxy.vm_uuid = argv[6 + i];
        code = xvsa_proxy_add(h->pool, &proxy, NULL, &h->proxies[i], error);
    }
    return code;
}

/* Open the repository in the folder, or make it the first time. */
static int32_t open_repo(struct handles *h, const char *folder, const char *passphrase,
                         xvsa_error **error)
{
    char url[1024];
    snprintf(url, sizeof url, "file://%s/repository", folder);
    int32_t code = xvsa_target_open(h->context, url, XVSA_TARGET_CREATE, NULL, &h->target, error);
    if (code != XVSA_OK)
        return code;
    xvsa_repo_options options = XVSA_REPO_OPTIONS_INIT;
    options.passphrase = passphrase;
    options.passphrase_size = strlen(passphrase);
    code = xvsa_repo_open(h->target, &options, NULL, &h->repo, error);
    if (code == XVSA_ERR_NOT_FOUND) {
        xvsa_error_unref(*error);
        *error = NULL;
        code = xvsa_repo_init(h->target, &options, NULL, &h->repo, error);
    }
    return code;
}

/* Plan, start, and wait while telling how far it is. */
static int32_t back_up(struct handles *h, xvsa_error **error)
{
    const char *spec = "{\"type\": \"backup\", \"selection\": {\"vms\": [{\"all\": true}]}}";
    char *report = NULL;
    int32_t code = xvsa_plan_new(h->context, spec, h->pool, h->repo, NULL, &h->plan, error);
    if (code == XVSA_OK)
        code = xvsa_job_start(h->plan, &h->job, error);
    if (code != XVSA_OK)
        return code;
    while (xvsa_job_wait(h->job, 1000, NULL) == XVSA_ERR_TIMEOUT) {
        xvsa_progress progress = XVSA_PROGRESS_INIT;
        if (xvsa_job_get_progress(h->job, &progress, NULL) == XVSA_OK)
            fprintf(stderr, "%u of %u VMs, %llu MiB read\n", progress.vms_done, progress.vms_total,
                    (unsigned long long)(progress.bytes_read >> 20));
    }
    if (xvsa_job_report(h->job, &report, NULL) == XVSA_OK)
        printf("%s\n", report);
    xvsa_free(report);
    return xvsa_job_wait(h->job, -1, error); /* tells how it ended */
}

int main(int argc, char **argv)
{
    char password[256], passphrase[256];
    if (argc != 8) {
        fprintf(stderr, "usage: %s URL CA-FILE PASSWORD-FILE FOLDER PASSPHRASE-FILE VM-1 VM-2\n",
                argv[0]);
        return 2;
    }
    if (read_line(argv[3], password, sizeof password) != 0 ||
        read_line(argv[5], passphrase, sizeof passphrase) != 0)
        return 2;
    struct handles h = {0};
    xvsa_error *error = NULL;
    int32_t code = start(&h, argv[4], &error);
    if (code == XVSA_OK)
        code = open_pool(&h, argv, password, &error);
    if (code == XVSA_OK)
        code = open_repo(&h, argv[4], passphrase, &error);
    if (code == XVSA_OK)
        code = back_up(&h, &error);
    if (code != XVSA_OK)
        fprintf(stderr, "failed: %s\n%s\n", xvsa_error_message(error), xvsa_error_advice(error));
    xvsa_error_unref(error);
    release(&h);
    return code == XVSA_OK ? 0 : 1;
}
