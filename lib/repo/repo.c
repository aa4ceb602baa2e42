/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Making and opening repositories.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "repo/internal.h"
#include "repo/key.h"
#include "repo/work_facts.h"

#define DEFAULT_KDF_LOG_N 17
#define DEFAULT_LEVEL     1
#define SLOTS_MAX         64

#define LOCK_FOLDERS (sizeof lock_folders / sizeof lock_folders[0])
static const char *const lock_folders[] = {"/run/lock", "/tmp"};

static int check_options(const struct xv_repo_options *options, bool init, xvsa_error **error)
{
    uint32_t size = options->chunk_size;
    if ((options->flags & ~(XVSA_REPO_NO_ENCRYPTION | XVSA_REPO_READ_ONLY)) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "unknown flags 0x%x", options->flags);
    if (options->compression_level < -7 || options->compression_level > 19)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "compression_level must be from -7 to 19");
    if (!init)
        return 0;
    if (size != 0 &&
        (size < 1u << XV_CHUNK_LOG2_MIN || size > XV_CHUNK_MAX || (size & (size - 1)) != 0))
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "chunk_size must be a power of two from 64 KiB to 4 MiB");
    if (options->kdf_log_n != 0 && (options->kdf_log_n < 10 || options->kdf_log_n > 22))
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "kdf_log_n must be from 10 to 22");
    bool encrypted = (options->flags & XVSA_REPO_NO_ENCRYPTION) == 0;
    if (encrypted && (options->passphrase == NULL || options->passphrase_size == 0))
        return xv_fail(
            error, XVSA_ERR_INVALID, "repo",
            "a passphrase is required; a repository without encryption must be asked for");
    if (!encrypted && options->passphrase_size != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "a repository without encryption takes no passphrase");
    if ((options->flags & XVSA_REPO_READ_ONLY) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "a new repository cannot be read-only");
    return 0;
}

static int make_repo(struct xv_target *target, const struct xv_repo_options *options,
                     struct xv_repo **ret, xvsa_error **error)
{
    struct xv_repo *repo = calloc(1, sizeof *repo);
    if (repo == NULL)
        return xv_fail_memory(error);
    atomic_init(&repo->references, 1);
    repo->target = xv_target_ref(target);
    repo->env = options->env;
    repo->flags = options->flags & XVSA_REPO_READ_ONLY;
    repo->level = options->compression_level == 0 ? DEFAULT_LEVEL : options->compression_level;
    repo->lock_fd = -1;
    xv_baton_init(&repo->journal);
    xv_baton_init(&repo->doing);
    xv_state_init(&repo->state);
    int rc = xv_index_new(repo, &repo->index, error);
    if (rc != 0) {
        xv_repo_unref(repo);
        return rc;
    }
    *ret = repo;
    return 0;
}

struct xv_repo *xv_repo_ref(struct xv_repo *repo)
{
    if (repo != NULL)
        atomic_fetch_add_explicit(&repo->references, 1, memory_order_relaxed);
    return repo;
}

void xv_repo_unref(struct xv_repo *repo)
{
    if (repo == NULL || atomic_fetch_sub_explicit(&repo->references, 1, memory_order_acq_rel) != 1)
        return;
    xv_index_free(repo->index);
    xv_state_free(&repo->state);
    xvsa_error_unref(repo->damage);
    xv_baton_destroy(&repo->journal);
    xv_baton_destroy(&repo->doing);
    xv_done_free(repo->done);
    xv_crypt_free(repo->crypt);
    if (repo->lock_fd >= 0) {
        (void)unlink(repo->lock_path);
        close(repo->lock_fd);
    }
    xv_target_unref(repo->target);
    free(repo);
}

const char *xv_repo_id(const struct xv_repo *repo)
{
    return repo->id;
}

uint32_t xv_repo_chunk_size(const struct xv_repo *repo)
{
    return 1u << repo->config.chunk_log2;
}

/* Opens and locks one file. The lock counts only while the file has its name: its last holder may have
 * removed it between our opening and locking. */
static int try_lock(struct xv_repo *repo, const char *path, xvsa_error **error)
{
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return 0;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            close(fd);
            return xv_fail(
                error, XVSA_ERR_BUSY, "repo",
                "%s has no conditional writes and another program has repository %s open "
                "for writing",
                xv_target_url(repo->target), repo->id);
        }
        struct stat ours, named;
        if (fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino &&
            ours.st_dev == named.st_dev) {
            repo->lock_fd = fd;
            return 0;
        }
        close(fd);
    }
}

/* Locks other writers of this machine out, for targets without conditional writes. Not being able to
 * make a lock leaves lock_fd at -1, which forbids writing. */
static int lock_writers(struct xv_repo *repo, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && repo->lock_fd < 0 && i < LOCK_FOLDERS; i++) {
        snprintf(repo->lock_path, sizeof repo->lock_path, "%s/xvsa-%s.lock", lock_folders[i],
                 repo->id);
        rc = try_lock(repo, repo->lock_path, error);
    }
    return rc;
}

/* Finds out how journal entries can be made. */
static int prepare_writing(struct xv_repo *repo, const struct xv_call *call, xvsa_error **error)
{
    if ((repo->flags & XVSA_REPO_READ_ONLY) != 0)
        return 0;
    int rc = xv_target_probe(repo->target, &repo->if_absent, call, error);
    if (rc == 0 && !repo->if_absent)
        rc = lock_writers(repo, error);
    return rc;
}

/* Objects below these names do not make a target a used one. */
static int32_t stop_at_object(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    if (strncmp(name, "probe/", 6) == 0 || strncmp(name, "key/", 4) == 0)
        return 0;
    snprintf(sink, XV_NAME_BYTES, "%s", name);
    return 1;
}

static int check_empty(struct xv_target *target, const struct xv_call *call, xvsa_error **error)
{
    char found[XV_NAME_BYTES] = "";
    int rc = xv_target_list(target, "", stop_at_object, found, call, error);
    if (rc == 1)
        return xv_fail(error, XVSA_ERR_EXISTS, "repo", "%s is not empty: it has an object '%s'",
                       xv_target_url(target), found);
    return rc;
}

static int write_key_slot(struct xv_repo *repo, const struct xv_repo_options *options,
                          const uint8_t *master, char name[XV_NAME_BYTES],
                          const struct xv_call *call, xvsa_error **error)
{
    struct xv_key_slot slot = {.created_ms = repo->config.created_ms};
    uint8_t encoded[XV_KEY_SLOT_BYTES];
    uint8_t number[8];
    char hex[17];
    int rc = xv_random(number, sizeof number, error);
    if (rc != 0)
        return rc;
    xv_hex_encode(number, sizeof number, hex);
    snprintf(name, XV_NAME_BYTES, "key/%s", hex);
    memcpy(slot.repo_id, repo->config.repo_id, XV_HANDLE_BYTES);
    if ((options->flags & XVSA_REPO_NO_ENCRYPTION) == 0) {
        slot.kdf = XV_KDF_SCRYPT;
        slot.log_n = (uint8_t)(options->kdf_log_n == 0 ? DEFAULT_KDF_LOG_N : options->kdf_log_n);
    }
    rc =
        xv_key_slot_wrap(&slot, name, options->passphrase, options->passphrase_size, master, error);
    if (rc == 0) {
        xvsa_buffer piece = {encoded, xv_key_slot_encode(&slot, encoded)};
        rc = xv_target_put(repo->target, name, &piece, 1, 0, call, error);
    }
    if (rc == 0)
        rc = xv_target_barrier(repo->target, call, error);
    xv_wipe(&slot, sizeof slot);
    xv_wipe(encoded, sizeof encoded);
    return rc;
}

/* The repository exists from here on. */
static int write_config(struct xv_repo *repo, const struct xv_call *call, xvsa_error **error)
{
    uint8_t encoded[XV_CONFIG_BYTES];
    int rc = xv_config_encode(&repo->config, repo->crypt, encoded, error);
    xvsa_buffer piece = {encoded, sizeof encoded};
    if (rc == 0)
        rc = xv_target_put(repo->target, XV_CONFIG_NAME, &piece, 1,
                           repo->if_absent ? XVSA_PUT_IF_ABSENT : 0, call, error);
    if (rc == 0)
        rc = xv_target_barrier(repo->target, call, error);
    return rc;
}

static int create(struct xv_repo *repo, const struct xv_repo_options *options,
                  const struct xv_call *call, xvsa_error **error)
{
    uint8_t master[XV_KEY_BYTES];
    char slot[XV_NAME_BYTES] = "";
    uint32_t chunk_size = options->chunk_size == 0 ? 1u << XV_CHUNK_LOG2_MIN : options->chunk_size;
    struct xv_config *config = &repo->config;
    config->created_ms = xv_wall_ms();
    while (1u << config->chunk_log2 < chunk_size)
        config->chunk_log2++;
    config->cipher =
        (options->flags & XVSA_REPO_NO_ENCRYPTION) != 0 ? XV_CIPHER_NONE : XV_CIPHER_GCM;
    config->pack_target = XV_PACK_TARGET;
    config->frame_target = chunk_size > XV_FRAME_TARGET ? chunk_size : XV_FRAME_TARGET;
    int rc = xv_random(config->repo_id, sizeof config->repo_id, error);
    if (rc == 0)
        rc = xv_random(master, sizeof master, error);
    if (rc == 0)
        rc = xv_crypt_new(config->repo_id, master, config->cipher, &repo->crypt, error);
    xv_hex_encode(config->repo_id, XV_HANDLE_BYTES, repo->id);
    if (rc == 0)
        rc = prepare_writing(repo, call, error);
    if (rc == 0)
        rc = write_key_slot(repo, options, master, slot, call, error);
    xv_wipe(master, sizeof master);
    if (rc != 0)
        return rc;
    rc = write_config(repo, call, error);
    /* Somebody else's repository came first: our slot opens nothing. */
    if (rc == XVSA_ERR_EXISTS && xv_target_remove(repo->target, slot, call, NULL) != 0)
        xv_log(repo->env, XVSA_LOG_WARNING, "repo", "'%s' is left over", slot);
    return rc;
}

int xv_repo_init(struct xv_target *target, const struct xv_repo_options *options,
                 const struct xv_call *call, struct xv_repo **ret, xvsa_error **error)
{
    int rc = check_options(options, true, error);
    if (rc == 0)
        rc = check_empty(target, call, error);
    struct xv_repo *repo = NULL;
    if (rc == 0)
        rc = make_repo(target, options, &repo, error);
    if (rc == 0)
        rc = create(repo, options, call, error);
    if (rc != 0) {
        xv_repo_unref(repo);
        return rc;
    }
    *ret = repo;
    return 0;
}

struct slot_names {
    char names[SLOTS_MAX][XV_NAME_BYTES];
    size_t count;
};

static int32_t collect_slot(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    struct slot_names *slots = sink;
    if (slots->count == SLOTS_MAX)
        return XVSA_ERR_LIMIT;
    snprintf(slots->names[slots->count++], XV_NAME_BYTES, "%s", name);
    return 0;
}

/* Tries one slot: AUTH when the passphrase is not its own, NOT_FOUND when it is of another
 * repository. */
static int try_slot(struct xv_repo *repo, const char *name, const struct xv_repo_options *options,
                    uint8_t *master, const struct xv_call *call, xvsa_error **error)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    struct xv_key_slot slot;
    int rc = xv_target_get_all(repo->target, name, XV_KEY_SLOT_BYTES, &data, &length, call, error);
    if (rc != 0)
        return rc;
    rc = xv_key_slot_decode(data, (size_t)length, name, &slot, error);
    if (rc == 0 && memcmp(slot.repo_id, repo->config.repo_id, XV_HANDLE_BYTES) != 0)
        rc =
            xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "'%s' is a key of another repository", name);
    bool clear = rc == 0 && slot.kdf == XV_KDF_CLEAR;
    /* Who brings a passphrase expects encryption: a repository without it may have been put in the
     * place of the right one. */
    if (clear && (options->passphrase_size != 0 || repo->config.cipher != XV_CIPHER_NONE))
        rc = xv_fail(
            error, XVSA_ERR_AUTH, "repo",
            "the repository has a key without a passphrase: it is not encrypted, or not the "
            "one you think");
    if (rc == 0)
        rc = xv_key_slot_unwrap(&slot, name, options->passphrase, options->passphrase_size, master,
                                error);
    xv_wipe(data, (size_t)length);
    xv_wipe(&slot, sizeof slot);
    free(data);
    return rc;
}

/* The first slot that opens. When none does, damage tells more than a wrong passphrase. */
static int find_master(struct xv_repo *repo, const struct xv_repo_options *options, uint8_t *master,
                       const struct xv_call *call, xvsa_error **error)
{
    struct slot_names *slots = calloc(1, sizeof *slots);
    if (slots == NULL)
        return xv_fail_memory(error);
    int rc = xv_target_list(repo->target, "key/", collect_slot, slots, call, error);
    if (rc == XVSA_ERR_LIMIT)
        rc = 0;
    xvsa_error *worst = NULL;
    int code = XVSA_ERR_NOT_FOUND;
    bool found = false;
    for (size_t i = 0; rc == 0 && !found && i < slots->count; i++) {
        xvsa_error *e = NULL;
        int tried = try_slot(repo, slots->names[i], options, master, call, &e);
        found = tried == 0;
        bool worse = tried != 0 && tried != XVSA_ERR_NOT_FOUND && code != XVSA_ERR_CORRUPT;
        if (worse) {
            xv_error_clear(&worst);
            worst = xvsa_error_ref(e);
            code = tried;
        }
        xvsa_error_unref(e);
    }
    free(slots);
    if (rc != 0 || found) {
        xvsa_error_unref(worst);
        return rc;
    }
    if (worst == NULL) {
        rc = xv_fault(error, "key/*", "no key slot of the repository is left");
    } else {
        rc = code;
        if (error != NULL)
            *error = worst;
        else
            xvsa_error_unref(worst);
    }
    return xv_fault_is_damage(rc) ? xv_fault_disk(error, rc, "*", "*") : rc;
}

static int read_config(struct xv_repo *repo, uint8_t **data, const struct xv_call *call,
                       xvsa_error **error)
{
    uint64_t length = 0;
    int rc = xv_target_get_all(repo->target, XV_CONFIG_NAME, XV_CONFIG_BYTES, data, &length, call,
                               error);
    if (rc == XVSA_ERR_NOT_FOUND) {
        xv_fault_drop(error);
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "there is no repository on %s",
                       xv_target_url(repo->target));
    }
    if (rc == 0)
        rc = xv_config_decode(*data, (size_t)length, &repo->config, error);
    if (rc == 0)
        xv_hex_encode(repo->config.repo_id, XV_HANDLE_BYTES, repo->id);
    return xv_fault_is_damage(rc) ? xv_fault_disk(error, rc, "*", "*") : rc;
}

static int open_repo(struct xv_repo *repo, const struct xv_repo_options *options,
                     const struct xv_call *call, xvsa_error **error)
{
    uint8_t *config = NULL;
    uint8_t master[XV_KEY_BYTES];
    int rc = read_config(repo, &config, call, error);
    if (rc == 0)
        rc = find_master(repo, options, master, call, error);
    if (rc == 0)
        rc = xv_crypt_new(repo->config.repo_id, master, repo->config.cipher, &repo->crypt, error);
    xv_wipe(master, sizeof master);
    if (rc == 0) {
        rc = xv_config_authenticate(config, repo->crypt, error);
        if (rc == XVSA_ERR_CORRUPT)
            xv_fault_disk(error, rc, "*", "*");
    }
    free(config);
    if (rc == 0)
        rc = prepare_writing(repo, call, error);
    if (rc != 0)
        return rc;
    rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    rc = xv_journal_refresh(repo, call, error);
    xv_baton_give(&repo->journal);
    return rc;
}

int xv_repo_open(struct xv_target *target, const struct xv_repo_options *options,
                 const struct xv_call *call, struct xv_repo **ret, xvsa_error **error)
{
    struct xv_repo *repo = NULL;
    int rc = check_options(options, false, error);
    if (rc == 0)
        rc = make_repo(target, options, &repo, error);
    if (rc == 0)
        rc = open_repo(repo, options, call, error);
    if (rc != 0) {
        xv_repo_unref(repo);
        return rc;
    }
    *ret = repo;
    return 0;
}
