/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * libxvsa: backup and restore of the virtual machines of XenServer and XCP-ng pools.
 *
 * Conventions
 *
 * - Handles are opaque and reference counted. xvsa_<noun>_ref adds a reference and returns its
 *   argument; xvsa_<noun>_unref drops one, accepts NULL and never blocks. A handle keeps the handles
 *   it was made from alive.
 * - A function that can fail returns XVSA_OK (0) or a negative XVSA_ERR_* code. Its last parameter,
 *   xvsa_error **error, may be NULL; on failure it receives one error object that the caller releases
 *   with xvsa_error_unref. On success it is not touched. Results are stored on success only.
 * - Structures that the caller fills begin with their size: use the initialiser XVSA_<STRUCT>_INIT.
 *   Zero means "default" for every member. They only ever grow at the end; a member that this
 *   library does not know must be zero. Strings are UTF-8 and are copied.
 * - Documents (inventories, plans, reports) are JSON text whose members docs/documents.md describes.
 *   Members may be added in later versions; ignore the ones you do not know. Text handed out through
 *   a char ** belongs to the caller, who releases it with xvsa_free.
 * - Sizes and offsets are in bytes, durations in milliseconds, instants in milliseconds since
 *   1970-01-01T00:00:00Z.
 * - Thread tags: [any] may be called by any thread at any time, also for one handle at once;
 *   [own] one thread at a time for a handle; [callback] also allowed inside a callback.
 *   The library calls the embedder (log sink, storage target) without holding a lock.
 * - The library prints nothing, installs no signal handler, never exits and does not use the
 *   environment. fork() without exec() is not supported while a context exists.
 */
#ifndef XVSA_H
#define XVSA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define XVSA_API __attribute__((visibility("default")))
#else
#define XVSA_API
#endif

/** Version of this header: major * 1000000 + minor * 1000 + patch. */
#define XVSA_VERSION 1000

#ifdef __cplusplus
#define XVSA_SIZED_INIT(type)                                                                      \
    {                                                                                              \
        static_cast<uint32_t>(sizeof(type))                                                        \
    }
#else
#define XVSA_SIZED_INIT(type)                                                                      \
    {                                                                                              \
        .size = (uint32_t)sizeof(type)                                                             \
    }
#endif

/* ------------------------------------------------------------------------------------------------
 * Result codes
 * ---------------------------------------------------------------------------------------------- */

/** Result codes. Negative, never reused; each answers "what can I do". New ones may be added. */
#define XVSA_OK                  0
#define XVSA_ERR_INVALID         (-1)  /**< an argument is wrong; the message names it */
#define XVSA_ERR_ABI             (-2)  /**< a structure's size or unknown tail is not acceptable */
#define XVSA_ERR_STATE           (-3)  /**< not possible in the object's present state */
#define XVSA_ERR_MEMORY          (-4)  /**< out of memory */
#define XVSA_ERR_LIMIT           (-5)  /**< a bound on outside data was exceeded */
#define XVSA_ERR_BUSY            (-6)  /**< in use by somebody else; repeat later */
#define XVSA_ERR_UNSUPPORTED     (-7)  /**< the peer, the target or this build cannot do it */
#define XVSA_ERR_INTERNAL        (-8)  /**< a fault of the library */
#define XVSA_ERR_NOT_FOUND       (-20) /**< no such object */
#define XVSA_ERR_EXISTS          (-21) /**< it is there already */
#define XVSA_ERR_CONFLICT        (-22) /**< changed by somebody else meanwhile */
#define XVSA_ERR_FENCED          (-23) /**< a newer session took over; this one's work is void */
#define XVSA_ERR_AUTH            (-30) /**< wrong credentials or passphrase */
#define XVSA_ERR_DENIED          (-31) /**< the account may not do it */
#define XVSA_ERR_TLS             (-32) /**< the peer's certificate is not the trusted one */
#define XVSA_ERR_NETWORK         (-40) /**< unreachable or connection lost */
#define XVSA_ERR_TIMEOUT         (-41) /**< the deadline passed */
#define XVSA_ERR_CANCELLED       (-42) /**< cancelled on request */
#define XVSA_ERR_PROTOCOL        (-43) /**< the peer sent something invalid */
#define XVSA_ERR_XENAPI          (-50) /**< the pool refused; see the XenAPI code */
#define XVSA_ERR_TARGET          (-60) /**< the storage target failed */
#define XVSA_ERR_SPACE           (-61) /**< no space left */
#define XVSA_ERR_IO              (-62) /**< device or file system error */
#define XVSA_ERR_CORRUPT         (-63) /**< stored data is damaged */
#define XVSA_ERR_FORMAT          (-64) /**< not this format, or a newer version of it */
#define XVSA_ERR_PARTIAL         (-70) /**< a job ended with failures of single VMs; see its report */
#define XVSA_ERR_REFUSED         (-71) /**< the plan or a policy refuses; see its reasons */
#define XVSA_ERR_UNKNOWN_OUTCOME (-72) /**< it may or may not have happened */

/** Name of a result code, "NOT_FOUND" for XVSA_ERR_NOT_FOUND. Static text. [any] [callback]
 *  Since 0.1. */
XVSA_API const char *xvsa_code_name(int32_t code);

/** One sentence on what to do about a result code. Static text. [any] [callback] Since 0.1. */
XVSA_API const char *xvsa_code_advice(int32_t code);

/* ------------------------------------------------------------------------------------------------
 * Library
 * ---------------------------------------------------------------------------------------------- */

/** Version of the library at run time, as XVSA_VERSION. [any] [callback] Since 0.1. */
XVSA_API uint32_t xvsa_version(void);

/** Version of the library at run time as text, "0.1.0". Static text. [any] [callback] Since 0.1. */
XVSA_API const char *xvsa_version_string(void);

/** Releases text or a buffer that a function of this header handed to the caller; NULL is allowed.
 *  [any] [callback] Since 0.1. */
XVSA_API void xvsa_free(void *memory);

/* ------------------------------------------------------------------------------------------------
 * Errors
 * ---------------------------------------------------------------------------------------------- */

/** What went wrong: immutable, free-threaded, may outlive every other handle. All accessors are
 *  [any] [callback] and accept NULL. Text they return belongs to the error. */
typedef struct xvsa_error xvsa_error;

/** Adds a reference. Since 0.1. */
XVSA_API xvsa_error *xvsa_error_ref(xvsa_error *error);
/** Drops a reference. Since 0.1. */
XVSA_API void xvsa_error_unref(xvsa_error *error);
/** The XVSA_ERR_* code; XVSA_OK for NULL. Since 0.1. */
XVSA_API int32_t xvsa_error_code(const xvsa_error *error);
/** One line in plain words that names the object concerned; never holds a secret. Since 0.1. */
XVSA_API const char *xvsa_error_message(const xvsa_error *error);
/** The part that failed: "xenapi", "nbd", "repo", "target", "job" and others. Since 0.1. */
XVSA_API const char *xvsa_error_component(const xvsa_error *error);
/** The pool's own error code verbatim ("SR_BACKEND_FAILURE_44") or NULL; looks into causes. Since 0.1. */
XVSA_API const char *xvsa_error_xenapi_code(const xvsa_error *error);
/** Number of parameters of the XenAPI code. Since 0.1. */
XVSA_API uint32_t xvsa_error_xenapi_param_count(const xvsa_error *error);
/** Parameter of the XenAPI code verbatim; NULL when index is too large. Since 0.1. */
XVSA_API const char *xvsa_error_xenapi_param(const xvsa_error *error, uint32_t index);
/** errno of a failed system call or 0. Since 0.1. */
XVSA_API int32_t xvsa_error_errno(const xvsa_error *error);
/** HTTP status of a failed request or 0. Since 0.1. */
XVSA_API int32_t xvsa_error_http_status(const xvsa_error *error);
/** 1 when repeating the same call later may succeed, else 0. Since 0.1. */
XVSA_API int32_t xvsa_error_is_retryable(const xvsa_error *error);
/** What the error is about: key is "pool", "host", "vm", "vdi", "sr", "point", "disk", "object" and
 *  others; NULL when not known. Looks into causes. Since 0.1. */
XVSA_API const char *xvsa_error_detail(const xvsa_error *error, const char *key);
/** The lower error that led to this one, or NULL; borrowed from error. Since 0.1. */
XVSA_API const xvsa_error *xvsa_error_cause(const xvsa_error *error);
/** One sentence on what to do. Static text. Since 0.1. */
XVSA_API const char *xvsa_error_advice(const xvsa_error *error);

/** Flag for xvsa_error_new: repeating may succeed. */
#define XVSA_ERROR_RETRYABLE 0x1u

/** Makes an error; for authors of storage targets. code must be negative and is returned. component
 *  is "target" or "embedder". message is copied. os_errno is 0 when there is none. ret may be NULL.
 *  Since 0.1. */
XVSA_API int32_t xvsa_error_new(int32_t code, const char *component, const char *message,
                                int32_t os_errno, uint32_t flags, xvsa_error **ret);

/* ------------------------------------------------------------------------------------------------
 * Cancellation and deadlines
 * ---------------------------------------------------------------------------------------------- */

/** A token that stops the calls it was given to. */
typedef struct xvsa_cancel xvsa_cancel;

/** Makes a token. Errors: MEMORY, IO (no descriptors left). [any] Since 0.1. */
XVSA_API int32_t xvsa_cancel_new(xvsa_cancel **ret, xvsa_error **error);
/** Adds a reference. [any] [callback] Since 0.1. */
XVSA_API xvsa_cancel *xvsa_cancel_ref(xvsa_cancel *cancel);
/** Drops a reference. [any] [callback] Since 0.1. */
XVSA_API void xvsa_cancel_unref(xvsa_cancel *cancel);
/** Makes every call that holds the token return XVSA_ERR_CANCELLED soon. May be repeated; safe in a
 *  signal handler. [any] [callback] Since 0.1. */
XVSA_API void xvsa_cancel_fire(xvsa_cancel *cancel);
/** 1 when the token was fired. [any] [callback] Since 0.1. */
XVSA_API int32_t xvsa_cancel_is_fired(const xvsa_cancel *cancel);

/** How long a blocking call may take. NULL in its place means the defaults. */
typedef struct xvsa_call {
    uint32_t size;       /**< sizeof(xvsa_call) */
    uint32_t flags;      /**< 0 */
    int64_t timeout_ms;  /**< 0: 5 minutes; negative: no limit */
    xvsa_cancel *cancel; /**< may be NULL; must live until the call returns */
} xvsa_call;
#define XVSA_CALL_INIT XVSA_SIZED_INIT(xvsa_call)

/* ------------------------------------------------------------------------------------------------
 * Context
 * ---------------------------------------------------------------------------------------------- */

/** Everything the library keeps for one user of it: settings, state file, storage-target schemes.
 *  Contexts are independent of each other. */
typedef struct xvsa_context xvsa_context;

#define XVSA_LOG_ERROR   1
#define XVSA_LOG_WARNING 2
#define XVSA_LOG_INFO    3
#define XVSA_LOG_DEBUG   4

/** Receives log lines. level is XVSA_LOG_*; component and message are valid during the call only.
 *  Called by any thread, also by several at once. */
typedef void (*xvsa_log_fn)(void *user, int32_t level, const char *component, const char *message);

/** Settings of a context. */
typedef struct xvsa_context_options {
    uint32_t size;     /**< sizeof(xvsa_context_options) */
    uint32_t flags;    /**< 0 */
    xvsa_log_fn log;   /**< NULL: no log */
    void *log_user;    /**< handed to log */
    int32_t log_level; /**< 0: XVSA_LOG_WARNING */
    uint32_t
        worker_threads; /**< threads that hash, compress and encrypt; 0: one for each processor */
    uint64_t memory_limit;  /**< bytes of data held in buffers by all jobs; a job begins fewer VMs
                                  at once rather than exceed its share; 0: 512 MiB */
    const char *state_path; /**< SQLite file with jobs and intents, created when missing. NULL: in
                                  memory, so that a crash leaves objects in the pool that only a
                                  later run with the same job name can find by their tags */
} xvsa_context_options;
#define XVSA_CONTEXT_OPTIONS_INIT XVSA_SIZED_INIT(xvsa_context_options)

/** Makes a context. options may be NULL. Errors: INVALID, ABI, MEMORY, IO, FORMAT (the state file
 *  was written by a newer version). [any] Since 0.1. */
XVSA_API int32_t xvsa_context_new(const xvsa_context_options *options, xvsa_context **ret,
                                  xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_context *xvsa_context_ref(xvsa_context *context);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_context_unref(xvsa_context *context);

/* ------------------------------------------------------------------------------------------------
 * Pool
 * ---------------------------------------------------------------------------------------------- */

/** A pool, reached through its one virtualization client: logged in to the coordinator host, which it
 *  follows when it moves. */
typedef struct xvsa_pool xvsa_pool;

/** The first connection's certificate is accepted when neither ca_file nor fingerprints is given, and
 *  pinned for the life of the handle; xvsa_pool_fingerprint tells it so that it can be kept. */
#define XVSA_POOL_TRUST_ON_FIRST_USE 0x1u
/** Leave objects of crashed jobs in the pool; see xvsa_pool_open. */
#define XVSA_POOL_NO_RECOVERY 0x2u
/** Allow http:// URLs: the password crosses the network in the clear. */
#define XVSA_POOL_ALLOW_PLAIN_HTTP 0x4u

/** Where a pool is and how to log in to it. */
typedef struct xvsa_pool_options {
    uint32_t size;           /**< sizeof(xvsa_pool_options) */
    uint32_t flags;          /**< XVSA_POOL_* */
    const char *const *urls; /**< URLs of members, the likely coordinator first; the scheme
                                          and port of the first also serve members learned later */
    const char *username;    /**< account; "root" or a pool user */
    const char *password;    /**< wiped from memory when the handle goes */
    const char *ca_file;     /**< PEM file with the CA that signed the members' certificates */
    const char *const *fingerprints; /**< SHA-256 of trusted certificates, 64 hex digits, colons
                                          allowed */
    const char *originator;          /**< name of the client in the pool; NULL: "libxvsa" */
    uint32_t url_count;              /**< number of urls, at least 1 */
    uint32_t fingerprint_count;      /**< number of fingerprints */
    const char *pool_uuid;           /**< refuse any other pool; NULL: whichever answers */
} xvsa_pool_options;
#define XVSA_POOL_OPTIONS_INIT XVSA_SIZED_INIT(xvsa_pool_options)

/** Logs in to a pool. Then removes what crashed jobs of this context's state file left in the pool,
 *  unless XVSA_POOL_NO_RECOVERY is set: objects of jobs that still run in another process stay, and
 *  failing to remove something only leaves it for the next time. call may be NULL.
 *  Errors: INVALID, AUTH, DENIED, TLS, NETWORK, TIMEOUT, CANCELLED, PROTOCOL, XENAPI, CONFLICT
 *  (another pool than pool_uuid answered). Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_pool_open(xvsa_context *context, const xvsa_pool_options *options,
                                const xvsa_call *call, xvsa_pool **ret, xvsa_error **error);
/** Logs out. The handle and its children then answer XVSA_ERR_STATE. Dropping the last reference
 *  without close leaves the session to expire at the server. Errors: NETWORK, TIMEOUT; the handle is
 *  closed all the same. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_pool_close(xvsa_pool *pool, const xvsa_call *call, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_pool *xvsa_pool_ref(xvsa_pool *pool);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_pool_unref(xvsa_pool *pool);
/** The pool's uuid; belongs to the handle. [any] Since 0.1. */
XVSA_API const char *xvsa_pool_uuid(const xvsa_pool *pool);
/** The pool's name, often empty; belongs to the handle. [any] Since 0.1. */
XVSA_API const char *xvsa_pool_name(const xvsa_pool *pool);
/** SHA-256 of the certificate of the member that was logged in to first, 64 lower-case hex digits;
 *  NULL over plain HTTP. Belongs to the handle. [any] Since 0.1. */
XVSA_API const char *xvsa_pool_fingerprint(const xvsa_pool *pool);

/** What the pool holds when the call begins, or later: hosts, storage repositories with the hosts that
 *  reach them, networks, VMs with their disks and interfaces, proxies with what they reach, as the JSON
 *  document "inventory". Read whole the first time; after that the pool's events are fetched, as of which the
 *  answer is current. call may be NULL.
 *  Errors: STATE, NETWORK, TIMEOUT, CANCELLED, PROTOCOL, XENAPI, LIMIT. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_pool_inventory(xvsa_pool *pool, const xvsa_call *call, char **ret_json,
                                     xvsa_error **error);

/** Lists VMs that a selection names, as the JSON document "vms": an array in the order of names.
 *  selection is the JSON object "selection" (docs/documents.md), {"vms":[{"all":true}]} for example.
 *  Snapshots, templates and control domains are never part of it. call may be NULL.
 *  Errors: INVALID (the selection), NOT_FOUND (a uuid or name that no VM has), and those of
 *  xvsa_pool_inventory. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_pool_list_vms(xvsa_pool *pool, const char *selection, const xvsa_call *call,
                                    char **ret_json, xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Storage repository
 * ---------------------------------------------------------------------------------------------- */

/** A storage repository of a pool, as it was when the handle was made. */
typedef struct xvsa_sr xvsa_sr;

/** Facts about a storage repository. Text belongs to the xvsa_sr. */
typedef struct xvsa_sr_info {
    uint32_t size;               /**< sizeof(xvsa_sr_info), set by the caller */
    uint32_t shared;             /**< 1 when attached to more than one live host */
    const char *uuid;            /**< uuid */
    const char *name;            /**< name label; need not be unique */
    const char *type;            /**< driver: "nfs", "lvmoiscsi", "ext" and others */
    uint64_t physical_size;      /**< bytes; 0 when unknown */
    uint64_t physical_used;      /**< bytes in use at the last scan */
    uint64_t virtual_allocation; /**< sum of the disks' sizes */
    uint32_t host_count;         /**< live hosts it is attached to */
    uint32_t supports_cbt;       /**< 1 when its driver can track changed blocks */
} xvsa_sr_info;
#define XVSA_SR_INFO_INIT XVSA_SIZED_INIT(xvsa_sr_info)

/** Finds a storage repository by uuid or by name. Errors: NOT_FOUND; CONFLICT when several have the
 *  name (the message lists their uuids); and those of xvsa_pool_inventory. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_pool_find_sr(xvsa_pool *pool, const char *uuid_or_name, const xvsa_call *call,
                                   xvsa_sr **ret, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_sr *xvsa_sr_ref(xvsa_sr *sr);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_sr_unref(xvsa_sr *sr);
/** Fills info, whose size member the caller has set. Errors: INVALID, ABI. [any] Since 0.1. */
XVSA_API int32_t xvsa_sr_get_info(const xvsa_sr *sr, xvsa_sr_info *info, xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Proxy
 * ---------------------------------------------------------------------------------------------- */

/** A worker that moves data for a pool. Its reach is the set of storage repositories attached to the
 *  live host where its VM runs; it is computed anew for every plan. The first proxy added to a pool
 *  coordinates. */
typedef struct xvsa_proxy xvsa_proxy;

/** This process runs on the proxy's VM: disks are attached to the VM and read or written as its devices
 *  (transport "hotadd") where its host reaches them. The process needs the right to open block devices, and
 *  nothing else of the VM may touch disks that appear: no automatic mounts, no scan by LVM or RAID. */
#define XVSA_PROXY_HERE 1u

/** Settings of a proxy. */
typedef struct xvsa_proxy_options {
    uint32_t size;       /**< sizeof(xvsa_proxy_options) */
    uint32_t flags;      /**< XVSA_PROXY_* or 0 */
    const char *name;    /**< unique in the pool; NULL: the VM's name */
    const char *vm_uuid; /**< the VM of the pool that the proxy runs on */
    uint32_t max_disks;  /**< disks moved at once; 0: 4 */
    uint32_t reserved;   /**< 0 */
    const char
        *device_path; /**< XVSA_PROXY_HERE: folder where the VM's devices show up; NULL: /dev */
} xvsa_proxy_options;
#define XVSA_PROXY_OPTIONS_INIT XVSA_SIZED_INIT(xvsa_proxy_options)

/** Adds a proxy to a pool. Errors: INVALID (also when this machine, with XVSA_PROXY_HERE and no
 *  device_path, tells that it is another VM), NOT_FOUND (no such VM), EXISTS (name or VM is taken), and
 *  those of xvsa_pool_inventory. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_proxy_add(xvsa_pool *pool, const xvsa_proxy_options *options,
                                const xvsa_call *call, xvsa_proxy **ret, xvsa_error **error);
/** Takes a proxy out of its pool: plans made later do without it, running jobs keep it. Errors: STATE
 *  when it is out already. [any] Since 0.1. */
XVSA_API int32_t xvsa_proxy_remove(xvsa_proxy *proxy, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_proxy *xvsa_proxy_ref(xvsa_proxy *proxy);
/** Drops a reference; the proxy stays in its pool. [any] Since 0.1. */
XVSA_API void xvsa_proxy_unref(xvsa_proxy *proxy);
/** Name of the proxy; belongs to the handle. [any] Since 0.1. */
XVSA_API const char *xvsa_proxy_name(const xvsa_proxy *proxy);
/** 1 when the proxy coordinates its pool. [any] Since 0.1. */
XVSA_API int32_t xvsa_proxy_is_coordinator(const xvsa_proxy *proxy);
/** Where the proxy runs and which storage repositories it reaches now, as the JSON document "reach".
 *  Errors: those of xvsa_pool_inventory. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_proxy_reach(xvsa_proxy *proxy, const xvsa_call *call, char **ret_json,
                                  xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Deployment
 * ---------------------------------------------------------------------------------------------- */

/** Tells what the proxies of count pools reach now, as the JSON document "deployment": for each VM and
 *  disk the proxies that reach it and how; VMs that nobody reaches, that the loss of one proxy or of one
 *  host would leave unprotected; and the fewest further proxies, with the hosts to put them on, that
 *  would cure that. Each pool is judged by itself. options is the JSON object "deployment-options"
 *  (docs/documents.md) or NULL. call may be NULL. Errors: INVALID, NOT_FOUND (a VM that the selection
 *  names), REFUSED (a pool offers no transport that is allowed), and those of xvsa_pool_inventory.
 *  Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_deployment_plan(xvsa_pool *const *pools, uint32_t count, const char *options,
                                      const xvsa_call *call, char **ret_json, xvsa_error **error);
/** Draws a document that xvsa_deployment_plan made: one HTML page with hosts, storage repositories,
 *  proxies and their reach as SVG, and findings and advice as tables. It is complete by itself (no
 *  script, nothing loaded from elsewhere), well-formed XML as well, and shows names as text whatever they
 *  hold. The same document gives the same page. Errors: INVALID (not such a document), LIMIT, MEMORY.
 *  [any] Since 0.1. */
XVSA_API int32_t xvsa_deployment_draw(const char *deployment, char **ret_html, xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Storage target
 * ---------------------------------------------------------------------------------------------- */

/** One piece of an object to be written. */
typedef struct xvsa_buffer {
    const void *data; /**< bytes */
    uint64_t length;  /**< number of bytes */
} xvsa_buffer;

/** Facts about a stored object. */
typedef struct xvsa_object_info {
    uint32_t size;       /**< sizeof(xvsa_object_info) */
    uint32_t flags;      /**< 0 */
    uint64_t length;     /**< bytes */
    int64_t modified_ms; /**< instant of writing, for display; 0 when unknown */
} xvsa_object_info;
#define XVSA_OBJECT_INFO_INIT XVSA_SIZED_INIT(xvsa_object_info)

/** What surrounds one operation of a target. */
typedef struct xvsa_target_call {
    uint32_t size;       /**< sizeof(xvsa_target_call) */
    uint32_t attempt;    /**< 1 for the first try of an operation, 2 for its first repetition */
    int64_t deadline_ms; /**< CLOCK_MONOTONIC instant after which to give up; 0: none */
    xvsa_cancel *cancel; /**< give up with XVSA_ERR_CANCELLED once fired; may be NULL */
} xvsa_target_call;

/** How an instance of a target is to be opened. */
typedef struct xvsa_target_request {
    uint32_t size;       /**< sizeof(xvsa_target_request) */
    uint32_t flags;      /**< XVSA_TARGET_CREATE */
    const char *url;     /**< the whole URL */
    const char *options; /**< JSON object of further settings or NULL; may hold secrets */
} xvsa_target_request;

/** Flag of xvsa_target_open: make the place when it is missing. */
#define XVSA_TARGET_CREATE 0x1u

/** Flag of put: fail with XVSA_ERR_EXISTS, and change nothing, when the name is taken; of several
 *  writers at once exactly one succeeds. Answer XVSA_ERR_UNSUPPORTED when you cannot. */
#define XVSA_PUT_IF_ABSENT 0x1u

/** Receives one row of a listing; a non-zero result stops the listing and is what list returns. */
typedef int32_t (*xvsa_list_fn)(void *sink, const char *name, const xvsa_object_info *info);

/** A kind of storage target: named objects that are written once, whole. Names are at most 96 bytes
 *  of [a-z0-9/-]. Members are called by several threads at once, never with a library lock held, and
 *  must not call back into the library except for functions tagged [callback].
 *
 *  put must be atomic (an object is visible whole or not at all) and the object must be durable once
 *  a later barrier returned: a target that reports success for data that a power failure can lose
 *  will lose restore points. Every operation may be repeated with the same arguments. An error that
 *  is worth a repetition carries XVSA_ERROR_RETRYABLE. When the outcome of a put is not known,
 *  answer XVSA_ERR_UNKNOWN_OUTCOME. */
typedef struct xvsa_target_ops {
    uint32_t size;  /**< sizeof(xvsa_target_ops) */
    uint32_t flags; /**< 0 */
    /** Opens an instance; may block. Required. */
    int32_t (*open)(void *user, const xvsa_target_request *request, void **ret_instance,
                    xvsa_error **error);
    /** Releases an instance after all its operations returned. Required. */
    void (*close)(void *instance);
    /** Writes a whole object made of count pieces. flags: XVSA_PUT_*. Required. */
    int32_t (*put)(void *instance, const xvsa_target_call *call, const char *name,
                   const xvsa_buffer *pieces, uint32_t count, uint32_t flags, xvsa_error **error);
    /** Reads length bytes at offset; *ret_length is smaller only at the object's end.
     *  XVSA_ERR_NOT_FOUND when there is no such object. Required. */
    int32_t (*get)(void *instance, const xvsa_target_call *call, const char *name, uint64_t offset,
                   void *buffer, uint64_t length, uint64_t *ret_length, xvsa_error **error);
    /** Facts about an object; XVSA_ERR_NOT_FOUND when there is none. Required. */
    int32_t (*stat)(void *instance, const xvsa_target_call *call, const char *name,
                    xvsa_object_info *info, xvsa_error **error);
    /** Lists names that begin with prefix and follow after (may be NULL) in byte order. Required. */
    int32_t (*list)(void *instance, const xvsa_target_call *call, const char *prefix,
                    const char *after, xvsa_list_fn fn, void *sink, xvsa_error **error);
    /** Removes an object; a missing one is success. Required. */
    int32_t (*remove)(void *instance, const xvsa_target_call *call, const char *name,
                      xvsa_error **error);
    /** Makes every put that returned before durable. NULL: put does so itself. */
    int32_t (*barrier)(void *instance, const xvsa_target_call *call, xvsa_error **error);
    /** Capacity and free space in bytes. May be NULL. */
    int32_t (*space)(void *instance, const xvsa_target_call *call, uint64_t *ret_total,
                     uint64_t *ret_free, xvsa_error **error);
    /** Forbids removal of an object before an instant. May be NULL. */
    int32_t (*lock_until)(void *instance, const xvsa_target_call *call, const char *name,
                          int64_t until_ms, xvsa_error **error);
    /** Called once with user when the context goes. May be NULL. */
    void (*destroy)(void *user);
} xvsa_target_ops;

/** Makes a kind of target known to a context under a URL scheme ("s3" for s3://...); ops is copied.
 *  "file" (a directory) and "memory" (for tests; lives as long as its handle) are built in. When the
 *  call fails, destroy is not called. Errors: INVALID, ABI, EXISTS. [any] Since 0.1. */
XVSA_API int32_t xvsa_target_register(xvsa_context *context, const char *scheme,
                                      const xvsa_target_ops *ops, void *user, xvsa_error **error);

/** A place where repositories are kept. */
typedef struct xvsa_target xvsa_target;

/** Opens a target. url: "file:///srv/backup", "memory:" or one of a registered scheme. flags:
 *  XVSA_TARGET_CREATE. options: JSON object for the target or NULL. Errors: INVALID, UNSUPPORTED (no
 *  such scheme), NOT_FOUND, DENIED and those of the target. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_target_open(xvsa_context *context, const char *url, uint32_t flags,
                                  const char *options, xvsa_target **ret, xvsa_error **error);
/** Tries what the target promises (atomic and conditional writes, ranges, listing, removal) on
 *  objects under "probe/", and tells the outcome as the JSON document "target-check". Errors: those of
 *  the target when it could not be tried at all. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_target_check(xvsa_target *target, const xvsa_call *call, char **ret_json,
                                   xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_target *xvsa_target_ref(xvsa_target *target);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_target_unref(xvsa_target *target);

/* ------------------------------------------------------------------------------------------------
 * Repository
 * ---------------------------------------------------------------------------------------------- */

/** Restore points, kept deduplicated, compressed and encrypted on one target. */
typedef struct xvsa_repo xvsa_repo;

/** Store without encryption. Data is then readable by whoever reads the target. */
#define XVSA_REPO_NO_ENCRYPTION 0x1u
/** Open for reading only: nothing is ever written to the target. */
#define XVSA_REPO_READ_ONLY 0x2u

/** Settings of a repository. chunk_size, kdf_log_n and NO_ENCRYPTION count at init only. */
typedef struct xvsa_repo_options {
    uint32_t size;             /**< sizeof(xvsa_repo_options) */
    uint32_t flags;            /**< XVSA_REPO_* */
    const void *passphrase;    /**< bytes; required unless the repository is not encrypted */
    uint64_t passphrase_size;  /**< number of bytes */
    uint32_t chunk_size;       /**< bytes, a power of two from 64 KiB to 4 MiB; 0: 64 KiB */
    int32_t compression_level; /**< zstd level -7 to 19 for what is written; 0: 1 */
    uint32_t kdf_log_n;        /**< scrypt cost as a power of two, 10 to 22; 0: 17 */
    uint32_t reserved;         /**< 0 */
} xvsa_repo_options;
#define XVSA_REPO_OPTIONS_INIT XVSA_SIZED_INIT(xvsa_repo_options)

/** Makes a repository on an empty target and opens it. Errors: INVALID, EXISTS, SPACE, UNSUPPORTED and
 *  those of the target. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_repo_init(xvsa_target *target, const xvsa_repo_options *options,
                                const xvsa_call *call, xvsa_repo **ret, xvsa_error **error);
/** Opens a repository. Errors: INVALID, NOT_FOUND, AUTH (wrong passphrase), FORMAT, CORRUPT, BUSY
 *  (another machine writes to a target without conditional writes) and those of the target. Blocks.
 *  [any] Since 0.1. */
XVSA_API int32_t xvsa_repo_open(xvsa_target *target, const xvsa_repo_options *options,
                                const xvsa_call *call, xvsa_repo **ret, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_repo *xvsa_repo_ref(xvsa_repo *repo);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_repo_unref(xvsa_repo *repo);
/** Identity, parameters, how conditional writes are done, counts and sizes, as the JSON document
 *  "repo". Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_repo_info(xvsa_repo *repo, const xvsa_call *call, char **ret_json,
                                xvsa_error **error);
/** Lists restore points, oldest first, as the JSON document "points". vm is a VM's uuid or name, or
 *  NULL for all. Only complete points are ever listed. Errors: CORRUPT and those of the target.
 *  Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_repo_list_points(xvsa_repo *repo, const char *vm, const xvsa_call *call,
                                       char **ret_json, xvsa_error **error);

/** One VM at one instant: its metadata and all its disks. */
typedef struct xvsa_point xvsa_point;

/** Opens a restore point by its id, by an unambiguous beginning of it of 6 digits or more, or
 *  "latest:<vm uuid or name>". Errors: NOT_FOUND, CONFLICT (ambiguous), CORRUPT and those of the
 *  target. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_repo_find_point(xvsa_repo *repo, const char *id, const xvsa_call *call,
                                      xvsa_point **ret, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_point *xvsa_point_ref(xvsa_point *point);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_point_unref(xvsa_point *point);
/** Id of a restore point, 32 hex digits; belongs to the handle. [any] Since 0.1. */
XVSA_API const char *xvsa_point_id(const xvsa_point *point);
/** VM, disks, metadata and statistics as the JSON document "point". [any] Since 0.1. */
XVSA_API int32_t xvsa_point_describe(const xvsa_point *point, char **ret_json, xvsa_error **error);
/** Deletes a restore point; any may be deleted in any order. Space is regained by garbage collection.
 *  Errors: BUSY (being used as a base or read by a job), NOT_FOUND (deleted already), and those of
 *  the target. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_point_delete(xvsa_point *point, const xvsa_call *call, xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Disk
 * ---------------------------------------------------------------------------------------------- */

/** The bytes of a disk of a restore point. Every byte read was verified against its id. */
typedef struct xvsa_disk xvsa_disk;

#define XVSA_EXTENT_HOLE 0 /**< never allocated; reads as zeros */
#define XVSA_EXTENT_ZERO 1 /**< zeros */
#define XVSA_EXTENT_DATA 2 /**< stored data */

/** A run of a disk. */
typedef struct xvsa_extent {
    uint64_t offset;   /**< bytes from the disk's beginning */
    uint64_t length;   /**< bytes */
    uint32_t kind;     /**< XVSA_EXTENT_* */
    uint32_t reserved; /**< 0 */
} xvsa_extent;

/** Opens a disk of a restore point. disk is its position ("0", "xvda"), or the uuid of the VDI it was
 *  read from. Errors: NOT_FOUND, CORRUPT. [any] Since 0.1. */
XVSA_API int32_t xvsa_point_open_disk(xvsa_point *point, const char *disk, const xvsa_call *call,
                                      xvsa_disk **ret, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_disk *xvsa_disk_ref(xvsa_disk *disk);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_disk_unref(xvsa_disk *disk);
/** Size in bytes. [any] Since 0.1. */
XVSA_API uint64_t xvsa_disk_size(const xvsa_disk *disk);
/** Reads length bytes at offset, all or nothing. Errors: INVALID (beyond the end), CORRUPT (names the
 *  object, the point and the disk) and those of the target. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_disk_read(xvsa_disk *disk, uint64_t offset, void *buffer, uint64_t length,
                                const xvsa_call *call, xvsa_error **error);
/** Tells the runs that cover [offset, offset + length), in order, adjacent ones of a kind joined, into
 *  extents, which has room for count. *ret_count tells how many were stored; when they end before
 *  offset + length, call again from there. Errors: INVALID, CORRUPT. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_disk_extents(xvsa_disk *disk, uint64_t offset, uint64_t length,
                                   xvsa_extent *extents, uint32_t count, uint32_t *ret_count,
                                   const xvsa_call *call, xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Plan
 * ---------------------------------------------------------------------------------------------- */

/** What a job will do, computed before it does it. */
typedef struct xvsa_plan xvsa_plan;

/** Computes a plan. spec is the JSON document "job" (docs/documents.md): its "type" is "backup",
 *  "restore" or "verify". pool may be NULL for verify. The plan holds on to pool and repo.
 *  A plan that refuses some VMs is made all the same; xvsa_plan_describe tells the reasons.
 *  Errors: INVALID (with the member's path), NOT_FOUND, CONFLICT (ambiguous; the message lists the
 *  choices), REFUSED, and those of xvsa_pool_inventory and of the repository. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_plan_new(xvsa_context *context, const char *spec, xvsa_pool *pool,
                               xvsa_repo *repo, const xvsa_call *call, xvsa_plan **ret,
                               xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_plan *xvsa_plan_ref(xvsa_plan *plan);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_plan_unref(xvsa_plan *plan);
/** The plan as the JSON document "plan": per VM and disk the proxy, transport, base and reasons.
 *  [any] Since 0.1. */
XVSA_API int32_t xvsa_plan_describe(const xvsa_plan *plan, char **ret_json, xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Job
 * ---------------------------------------------------------------------------------------------- */

/** A running or finished execution of a plan. */
typedef struct xvsa_job xvsa_job;

#define XVSA_JOB_RUNNING   1
#define XVSA_JOB_SUCCEEDED 2 /**< everything was done */
#define XVSA_JOB_PARTIAL   3 /**< some VMs failed; the report tells which */
#define XVSA_JOB_FAILED    4 /**< nothing was done */
#define XVSA_JOB_CANCELLED 5 /**< stopped on request; finished VMs are kept */
#define XVSA_JOB_PARKED    6 /**< stopped at a checkpoint; goes on later */
#define XVSA_JOB_SUSPENDED 7 /**< paused on request; goes on when resumed */

#define XVSA_CANCEL_GRACEFUL 1 /**< finish the VMs under way, begin no other */
#define XVSA_CANCEL_NOW      2 /**< stop at once, clean up; VMs that were finished are kept */

/** How far a job is. done never exceeds total; total may change while the job learns more. */
typedef struct xvsa_progress {
    uint32_t size;         /**< sizeof(xvsa_progress), set by the caller */
    int32_t state;         /**< XVSA_JOB_* */
    uint32_t vms_done;     /**< VMs finished, failed ones included */
    uint32_t vms_total;    /**< VMs of the plan */
    uint64_t bytes_done;   /**< bytes of disks dealt with */
    uint64_t bytes_total;  /**< bytes of disks to deal with */
    uint64_t bytes_read;   /**< bytes moved from the source */
    uint64_t bytes_stored; /**< bytes moved to the destination */
    int64_t elapsed_ms;    /**< since the start */
    int64_t remaining_ms;  /**< estimate; -1 when unknown */
} xvsa_progress;
#define XVSA_PROGRESS_INIT XVSA_SIZED_INIT(xvsa_progress)

/** Starts a plan; a plan can be started once. The job keeps context, pool and repository alive and
 *  goes on when its handle is dropped. Errors: STATE (started before), REFUSED (nothing in the plan
 *  can be done; the message gives the reasons), MEMORY, IO. [any] Since 0.1. */
XVSA_API int32_t xvsa_job_start(xvsa_plan *plan, xvsa_job **ret, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_job *xvsa_job_ref(xvsa_job *job);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_job_unref(xvsa_job *job);
/** Id of the job, 32 hex digits; belongs to the handle. [any] Since 0.1. */
XVSA_API const char *xvsa_job_id(const xvsa_job *job);
/** Tells how far the job is. Errors: INVALID, ABI. [any] Since 0.1. */
XVSA_API int32_t xvsa_job_get_progress(const xvsa_job *job, xvsa_progress *progress,
                                       xvsa_error **error);
/** Descriptor that is readable while an event waits; for poll only, owned by the job. [any] Since 0.1. */
XVSA_API int32_t xvsa_job_event_fd(const xvsa_job *job);
/** Takes the oldest waiting event as the JSON document "event". Waits up to timeout_ms (0: not at all,
 *  negative: without limit). The queue is bounded: a consumer that lags loses progress events first,
 *  never the last one, "finished". Errors: TIMEOUT (none came), STATE (the last one was taken).
 *  Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_job_next_event(xvsa_job *job, int64_t timeout_ms, char **ret_json,
                                     xvsa_error **error);
/** Waits up to timeout_ms (negative: without limit) for the end. Returns XVSA_OK when the job
 *  succeeded; TIMEOUT while it runs; PARTIAL, CANCELLED or the job's own error else. Blocks.
 *  [any] Since 0.1. */
XVSA_API int32_t xvsa_job_wait(xvsa_job *job, int64_t timeout_ms, xvsa_error **error);
/** Asks a job to stop; level is XVSA_CANCEL_*. A job that has ended is left alone. Errors: INVALID.
 *  [any] [callback] Since 0.1. */
XVSA_API int32_t xvsa_job_cancel(xvsa_job *job, int32_t level, xvsa_error **error);
/** Pauses a job: no further VM begins, and the ones under way stop moving data, but keep their
 *  snapshots and what was done. A long pause may cost the connections of disks that are read or written
 *  over HTTP, which then fail. Asked of a suspended job it does nothing; a cancellation ends the pause.
 *  Event "suspended". Errors: STATE (it has ended or is being cancelled). [any] [callback] Since 0.1. */
XVSA_API int32_t xvsa_job_suspend(xvsa_job *job, xvsa_error **error);
/** Goes on with a suspended job. Event "resumed". Errors: STATE. [any] [callback] Since 0.1. */
XVSA_API int32_t xvsa_job_resume(xvsa_job *job, xvsa_error **error);
/** Outcome per VM and disk, every reason, statistics, as the JSON document "report"; complete once
 *  the job has ended. [any] Since 0.1. */
XVSA_API int32_t xvsa_job_report(const xvsa_job *job, char **ret_json, xvsa_error **error);
/** Jobs that the state file knows, newest first, at most limit (0: 100), as the JSON document "jobs".
 *  A job whose process died is listed as "interrupted". Errors: IO, CORRUPT. [any] Since 0.1. */
XVSA_API int32_t xvsa_context_list_jobs(xvsa_context *context, uint32_t limit, char **ret_json,
                                        xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Site
 * ---------------------------------------------------------------------------------------------- */

/** Processes that work on jobs together, joined by a coordination store (docs/coordination.md). A
 *  process that moves data runs agents, see below; one that only submits and watches jobs opens the
 *  site alone. What is in the store may be lost without losing stored data. */
typedef struct xvsa_site xvsa_site;

/** Allow http:// to etcd servers of other machines: everything crosses the network in the clear. */
#define XVSA_SITE_ALLOW_PLAIN_HTTP 0x1u

/** Where a site's coordination store is. */
typedef struct xvsa_site_options {
    uint32_t size;        /**< sizeof(xvsa_site_options) */
    uint32_t flags;       /**< XVSA_SITE_* */
    const char *store;    /**< "sqlite:/path" (one machine), "sqlite:" (this process), or
                            "etcd:https://a:2379,https://b:2379" */
    const char *name;     /**< of the site, 1 to 64 of [a-z0-9-]; sites of one store are apart */
    const char *username; /**< etcd: account; NULL: none */
    const char *password; /**< etcd: wiped from memory when the handle goes; NULL: none */
    const char *ca_file;  /**< etcd: PEM file with the CA of the servers; NULL: the system's */
    const char *certificate_file; /**< etcd: PEM file with the client's certificate; NULL: none */
    const char *key_file;         /**< etcd: PEM file with its private key; NULL: none */
} xvsa_site_options;
#define XVSA_SITE_OPTIONS_INIT XVSA_SIZED_INIT(xvsa_site_options)

#define XVSA_CONTROL_SUSPEND    1 /**< checkpoint what is under way, keep it, begin nothing */
#define XVSA_CONTROL_RESUME     2 /**< go on where it was suspended */
#define XVSA_CONTROL_CANCEL     3 /**< finish the VMs under way, begin no other */
#define XVSA_CONTROL_CANCEL_NOW 4 /**< stop at once; VMs that are finished are kept */

/** Connects to a site's store. Errors: INVALID, ABI, NETWORK, TIMEOUT, AUTH, DENIED, TLS, UNSUPPORTED
 *  (the store is too old), FORMAT, IO. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_open(xvsa_context *context, const xvsa_site_options *options,
                                const xvsa_call *call, xvsa_site **ret, xvsa_error **error);
/** Disconnects. The handle then answers XVSA_ERR_STATE. Errors: STATE (an agent of this handle has not
 *  left the site). Blocks until calls under way have ended. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_close(xvsa_site *site, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_site *xvsa_site_ref(xvsa_site *site);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_site_unref(xvsa_site *site);

/** Queues a job for the members of the site. spec is the JSON document "job" with the members of
 *  "job of a site" (docs/documents.md). *ret_job_id, 32 hex digits, belongs to the caller. The job is
 *  durable in the store when the call returns, and goes on without this process. Errors: INVALID (with
 *  the member's path), NOT_FOUND (no living member serves a pool that is given by name), CONFLICT (the
 *  name is ambiguous), SPACE, and those of xvsa_site_open. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_submit(xvsa_site *site, const char *spec, const xvsa_call *call,
                                  char **ret_job_id, xvsa_error **error);
/** Tells the members what to do with a job; action is XVSA_CONTROL_*. Returns when it is written down;
 *  xvsa_site_job tells how far it was followed. job_id may be an unambiguous beginning of an id, here
 *  and below. Errors: INVALID, NOT_FOUND, CONFLICT (ambiguous), STATE (it has ended, or cannot be
 *  resumed because it is being cancelled), and those of xvsa_site_open. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_control(xvsa_site *site, const char *job_id, int32_t action,
                                   const xvsa_call *call, xvsa_error **error);
/** Queues a new job of the VMs of an ended one that failed, were cancelled or were refused. Errors:
 *  NOT_FOUND, CONFLICT, STATE (it has not ended, or every VM succeeded), and those of
 *  xvsa_site_submit. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_retry(xvsa_site *site, const char *job_id, const xvsa_call *call,
                                 char **ret_job_id, xvsa_error **error);
/** Jobs of the site, newest first, at most limit (0: 100), as the JSON document "site-jobs". Errors:
 *  those of xvsa_site_open. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_list_jobs(xvsa_site *site, uint32_t limit, const xvsa_call *call,
                                     char **ret_json, xvsa_error **error);
/** State and outcome of a job per pool, VM and disk, with every reason and who moved what, as the JSON
 *  document "site-job"; complete once the job has ended. Errors: NOT_FOUND, CONFLICT, and those of
 *  xvsa_site_open. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_job(xvsa_site *site, const char *job_id, const xvsa_call *call,
                               char **ret_json, xvsa_error **error);
/** Waits for the end of a job. Returns XVSA_OK when it succeeded; TIMEOUT while it goes on; PARTIAL,
 *  CANCELLED or the job's own error else; NOT_FOUND, CONFLICT, and those of xvsa_site_open. While the
 *  store is out of reach it goes on waiting. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_wait(xvsa_site *site, const char *job_id, const xvsa_call *call,
                                xvsa_error **error);
/** Members of the site in the order of addition, the pools they serve, who coordinates each pool and in
 *  which term, as the JSON document "site". Errors: those of xvsa_site_open. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_site_members(xvsa_site *site, const xvsa_call *call, char **ret_json,
                                   xvsa_error **error);

/* ------------------------------------------------------------------------------------------------
 * Agent
 * ---------------------------------------------------------------------------------------------- */

/** A member of a site: a process that runs on a proxy VM of a pool and works on the site's jobs with
 *  threads of the library. The first member that was added to a pool and lives coordinates it. */
typedef struct xvsa_agent xvsa_agent;

/** A repository that a member has open, and the name by which jobs call it. */
typedef struct xvsa_agent_repository {
    const char *name;
    xvsa_repo *repo;
} xvsa_agent_repository;

/** Disks are attached to the agent's VM, as with XVSA_PROXY_HERE. */
#define XVSA_AGENT_HOTADD 1u

/** Settings of an agent. */
typedef struct xvsa_agent_options {
    uint32_t size;  /**< sizeof(xvsa_agent_options) */
    uint32_t flags; /**< XVSA_AGENT_* or 0 */
    const char
        *name; /**< of the member, unique in the site, at most 64 letters, digits, '-', '_', '.' */
    xvsa_pool *pool;       /**< opened for this agent alone: it keeps the list of proxies equal to
                                the living members of the pool; xvsa_pool_open's recovery is not
                                needed, pass XVSA_POOL_NO_RECOVERY */
    const char *pool_name; /**< how jobs call the pool besides its uuid; NULL: the pool's name */
    const char *vm_uuid;   /**< VM of the pool that this process runs on: decides what it reaches */
    const xvsa_agent_repository *repositories; /**< what it can work with */
    uint32_t repository_count;                 /**< number of repositories, at least 1 */
    uint32_t max_disks;                        /**< disks moved at once; 0: 4 */
    int64_t lease_ttl_ms;  /**< it counts as dead when it could not renew its lease for so long;
                               0: 15000, at least 2000; the same for all members of a site */
    const char *address;   /**< told to whoever asks for the members; NULL: none */
    int64_t checkpoint_ms; /**< between checkpoints of what is moved: at most that much is moved
                                twice after a loss; 0: 5000, at least 100 */
    uint64_t unit_bytes; /**< about the size of what members move of a disk in one piece; 0: chosen
                              by the disk's size */
    const char
        *device_path; /**< XVSA_AGENT_HOTADD: folder where the VM's devices show up; NULL: /dev */
} xvsa_agent_options;
#define XVSA_AGENT_OPTIONS_INIT XVSA_SIZED_INIT(xvsa_agent_options)

/** Joins a site and begins to work. While a former member of the name has not been dead for
 *  lease_ttl_ms, it waits within the call's time. The agent keeps site, pool and repositories alive, and
 *  goes on when its handle is dropped; only draining ends it. Errors: INVALID, ABI, NOT_FOUND (the pool
 *  has no such VM), EXISTS (a member of the name lives elsewhere), those of xvsa_site_open and of
 *  xvsa_pool_inventory. Blocks. [any] Since 0.1. */
XVSA_API int32_t xvsa_agent_start(xvsa_site *site, const xvsa_agent_options *options,
                                  const xvsa_call *call, xvsa_agent **ret, xvsa_error **error);
/** Takes no further work, waits within the call's time for what is under way, then checkpoints the rest
 *  for others to go on with, hands the pool's coordination over and leaves the site. A second call with
 *  a shorter time hastens the first. Returns when the agent has left; only checkpointing may take longer
 *  than the call's time. [any] Since 0.1. */
XVSA_API int32_t xvsa_agent_drain(xvsa_agent *agent, const xvsa_call *call, xvsa_error **error);
/** How the agent is, for health checks, as the JSON document "agent". Does not block. [any] Since 0.1. */
XVSA_API int32_t xvsa_agent_status(xvsa_agent *agent, char **ret_json, xvsa_error **error);
/** Figures in the text format of Prometheus (docs/coordination.md). Does not block. [any] Since 0.1. */
XVSA_API int32_t xvsa_agent_metrics(xvsa_agent *agent, char **ret_text, xvsa_error **error);
/** Adds a reference. [any] Since 0.1. */
XVSA_API xvsa_agent *xvsa_agent_ref(xvsa_agent *agent);
/** Drops a reference. [any] Since 0.1. */
XVSA_API void xvsa_agent_unref(xvsa_agent *agent);

#ifdef __cplusplus
}
#endif

#endif
