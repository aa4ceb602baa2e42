/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A running pool simulator with a client, and what tests of operations do with both.
 */
#ifndef XV_TESTS_OPERATIONS_POOL_H
#define XV_TESTS_OPERATIONS_POOL_H

#include <curl/curl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"
#include "xenapi/operations_internal.h"

#define SOON_MS 120000

/* More VMs for the scenario, as JSON that begins with a comma. */
#ifndef MORE_VMS
#define MORE_VMS ""
#endif

static const char scenario[] =
    "{\"name\": \"ops\", \"hosts\": [{\"name\": \"host1\"}, {\"name\": \"host2\"}],"
    " \"srs\": [{\"name\": \"nfs\", \"type\": \"nfs\", \"shared\": true, \"size\": \"1 TiB\","
    "            \"default\": true}],"
    " \"networks\": [{\"name\": \"lan\", \"bridge\": \"xenbr0\", \"purpose\": [\"nbd\"]}],"
    " \"vms\": [{\"name\": \"web\", \"power_state\": \"Running\", \"host\": \"host1\","
    "            \"tags\": [\"a\"], \"cd\": true, \"NVRAM\": {\"EFI-variables\": \"AAEC\"},"
    "            \"disks\": [{\"sr\": \"nfs\", \"size\": \"16 MiB\", \"cbt\": true,"
    "                         \"generate\": {\"seed\": 1, \"bytes\": 3145728}},"
    "                        {\"sr\": \"nfs\", \"size\": \"8 MiB\"}],"
    "            \"vifs\": [{\"network\": \"lan\", \"mac\": \"02:00:00:00:00:01\"}]}" MORE_VMS "],"
    " \"options\": {\"lock_wait\": 0.3, \"data_destroy_wait\": 0.05}}";

struct pool {
    char folder[64];
    char url[128];
    char sim[128];
    char fingerprint[128]; /* of the first coordinator */
    char guests[128];      /* folder of the guests' devices */
    bool tls;
    pid_t process;
    struct xv_client *client;
    struct xv_call call;
    char *vm;
};

static inline char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 65536);
    if (file == NULL || text == NULL) {
        free(text);
        if (file != NULL)
            fclose(file);
        return NULL;
    }
    size_t length = fread(text, 1, 65535, file);
    fclose(file);
    text[length] = '\0';
    return text;
}

static inline void path_in(const struct pool *pool, const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", pool->folder, name);
}

static inline void spawn(struct pool *pool)
{
    char program[1024];
    char file[128];
    char ready[128];
    char data[128];
    const char *root = getenv("XVSA_SOURCE_ROOT");
    const char *chosen = getenv("XVSA_POOLSIM");
    ck_assert_msg(root != NULL, "XVSA_SOURCE_ROOT is not set");
    snprintf(program, sizeof program, "%s/tests/pool/poolsim", root);
    path_in(pool, "scenario.json", file, sizeof file);
    path_in(pool, "ready.json", ready, sizeof ready);
    path_in(pool, "data", data, sizeof data);
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    ck_assert_int_ge(fputs(scenario, out), 0);
    ck_assert_int_eq(fclose(out), 0);
    pool->process = unit_fork();
    if (pool->process == 0) {
        execlp("python3", "python3", chosen != NULL ? chosen : program, "--scenario", file,
               "--data", data, "--ready-file", ready, pool->tls ? "--tls" : NULL, (char *)NULL);
        _exit(127);
    }
}

static inline void await_ready(struct pool *pool)
{
    char ready[128];
    path_in(pool, "ready.json", ready, sizeof ready);
    for (int i = 0; i < 1200; i++) {
        int status = 0;
        ck_assert_msg(waitpid(pool->process, &status, WNOHANG) == 0, "the simulator ended");
        char *text = read_file(ready);
        if (text != NULL) {
            json_t *json = json_loads(text, 0, NULL);
            free(text);
            snprintf(pool->url, sizeof pool->url, "%s",
                     json_string_value(json_object_get(json, "coordinator")));
            snprintf(pool->sim, sizeof pool->sim, "%s",
                     json_string_value(json_object_get(json, "sim")));
            snprintf(pool->fingerprint, sizeof pool->fingerprint, "%s",
                     json_string_value(json_object_get(json, "fingerprint_sha256")));
            snprintf(pool->guests, sizeof pool->guests, "%s",
                     json_string_value(json_object_get(json, "guests")));
            json_decref(json);
            return;
        }
        usleep(100000);
    }
    ck_abort_msg("the simulator does not get ready");
}

static inline void start_pool_with(struct pool *pool, bool tls)
{
    xvsa_error *error = NULL;
    *pool = (struct pool){.folder = "/tmp/xvsa-ops-XXXXXX", .tls = tls};
    ck_assert_ptr_nonnull(mkdtemp(pool->folder));
    spawn(pool);
    await_ready(pool);
    const char *url = pool->url;
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "password",
                                        .flags = tls ? 0 : XVSA_POOL_ALLOW_PLAIN_HTTP};
    const char *fingerprint = pool->fingerprint;
    if (tls) {
        options.fingerprints = &fingerprint;
        options.fingerprint_count = 1;
    }
    pool->call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_client_open(&options, &pool->call, &pool->client, &error), error);
    struct xv_value *refs = NULL;
    ck_ok(xv_ask(pool->client, "VM.get_by_name_label", xv_params("web", NULL), true, &pool->call,
                 &refs, &error),
          error);
    pool->vm = strdup(xv_value_string(xv_value_at(refs, 0), ""));
    xv_value_free(refs);
}

static inline void start_pool(struct pool *pool)
{
    start_pool_with(pool, false);
}

static inline void stop_pool(struct pool *pool)
{
    xvsa_error *error = NULL;
    int status = 0;
    ck_ok(xv_client_close(pool->client, &pool->call, &error), error);
    xv_client_free(pool->client);
    kill(pool->process, SIGTERM);
    waitpid(pool->process, &status, 0);
    free(pool->vm);
    char *const remove[] = {(char *)"rm", (char *)"-rf", pool->folder, NULL};
    pid_t cleaner = fork();
    if (cleaner == 0) {
        execvp("rm", remove);
        _exit(127);
    }
    waitpid(cleaner, &status, 0);
}

static inline size_t collect(char *data, size_t size, size_t count, void *user)
{
    char **text = user;
    size_t had = *text == NULL ? 0 : strlen(*text);
    char *grown = realloc(*text, had + size * count + 1);
    ck_assert_ptr_nonnull(grown);
    memcpy(grown + had, data, size * count);
    grown[had + size * count] = '\0';
    *text = grown;
    return size * count;
}

/* Posts to the control interface; the caller frees the answer. */
static inline json_t *control(struct pool *pool, const char *action, const char *arguments)
{
    char url[256];
    char *text = NULL;
    CURL *curl = curl_easy_init();
    snprintf(url, sizeof url, "%s%s", pool->sim, action);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, arguments);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
    ck_assert_int_eq((int)curl_easy_perform(curl), CURLE_OK);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    ck_assert_msg(status == 200, "%s: %s", action, text == NULL ? "" : text);
    curl_easy_cleanup(curl);
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    free(text);
    return json;
}

static inline void fault(struct pool *pool, const char *rule)
{
    json_decref(control(pool, "fault/add", rule));
}

/* How many objects that clients made still exist. */
static inline size_t leftovers(struct pool *pool)
{
    json_t *made = control(pool, "made", "{}");
    const json_t *objects = json_object_get(made, "objects");
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(objects); i++) {
        const json_t *object = json_array_get(objects, i);
        const char *class_name = json_string_value(json_object_get(object, "class"));
        bool lasting = class_name == NULL ||
                       (strcmp(class_name, "task") != 0 && strcmp(class_name, "session") != 0);
        count += lasting && json_is_true(json_object_get(object, "exists"));
    }
    const json_t *entries = json_object_get(made, "entries");
    for (size_t i = 0; i < json_array_size(entries); i++)
        count += json_is_true(json_object_get(json_array_get(entries, i), "exists"));
    json_decref(made);
    return count;
}

static inline bool is_tag(void *user, const char *tag)
{
    return strcmp(tag, user) == 0;
}

static inline void sweep(struct pool *pool, const char *tag, size_t *ret_left)
{
    xvsa_error *error = NULL;
    size_t removed = 0;
    ck_ok(xv_leftovers_remove(pool->client, is_tag, (void *)(uintptr_t)tag, NULL, 0, &pool->call,
                              &removed, ret_left, &error),
          error);
}

static inline struct xv_inventory *inventory_of(struct pool *pool)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_inventory_read(pool->client, &pool->call, &all, &error), error);
    return all;
}

/* Takes a snapshot and lists its disks. */
static inline char *snapshot(struct pool *pool, const char *tag, struct xv_snapshot_disk **ret,
                             size_t *ret_count)
{
    char *ref = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_snapshot_take(pool->client, pool->vm, tag, NULL, 0, &pool->call, &ref, &error), error);
    ck_ok(xv_snapshot_disks(pool->client, ref, &pool->call, ret, ret_count, &error), error);
    return ref;
}

static inline bool has_python(void)
{
    return system("command -v python3 >/dev/null 2>&1") == 0;
}

#endif
