/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the parts of the command-line tool share. Functions that can fail print one line that says
 * what and why to the standard error, and return an exit code.
 */
#ifndef CLI_H
#define CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xvsa.h"

/* Exit codes; `xvsa --help` and docs/cli.md tell the same. */
#define EXIT_OK        0
#define EXIT_FAILED    1 /* the operation failed */
#define EXIT_USAGE     2 /* wrong arguments or configuration */
#define EXIT_PARTIAL   3 /* some VMs failed, others succeeded */
#define EXIT_REFUSED   4 /* the plan or a policy refuses */
#define EXIT_CANCELLED 5 /* stopped on request */
#define EXIT_DAMAGED   6 /* stored data is damaged */
#define EXIT_DENIED    7 /* wrong credentials, or a peer that is not trusted */

#define PROGRAM "xvsa"

struct config;
struct config_repository;

/* A list of texts given by a repeated option. The texts belong to the command line. */
struct texts {
    const char **items;
    size_t count;
};

/* Everything that the command line says; an option that was not given is NULL, 0 or false. */
struct arguments {
    const char *config, *state, *log_level;
    bool json, quiet, help;
    struct texts pool, fingerprint, proxy;
    const char *user, *password_file, *ca_file, *pool_uuid;
    int64_t password_fd, passphrase_fd; /* -1: not given */
    bool trust_first, plain_http, no_recovery;
    const char *repo, *passphrase_file;
    bool no_encryption, read_only;
    int64_t chunk_size, compression, kdf_cost;
    bool all;
    struct texts tag, pattern, exclude, exclude_tag, exclude_disk;
    const char *job, *name, *cbt;
    struct texts transport, refuse;
    bool insecure_nbd, allow_migration;
    int64_t parallel;
    const char *sr, *mac;
    struct texts sr_map, disk_map, network;
    const char *vm, *output, *html;
    int64_t offset, length, limit; /* length -1: up to the end */
    bool force, yes, quick, deployment, any_host;
    const char *site, *store, *member, *listen, *document;
    int64_t priority, time_limit;
    bool now, wait;
    const char **operands;
    size_t operand_count;
};

/* One way to say something on the command line. */
enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_TEXTS, OPTION_NUMBER, OPTION_SIZE };

struct option_spec {
    const char *name;  /* without the dashes; NULL ends a table */
    const char *value; /* how help names its value; NULL for a flag */
    const char *help;
    enum option_kind kind;
    char letter; /* short form or 0 */
    size_t offset;
};

/* A command of the tool. */
struct command {
    const char *name;     /* "pool show" */
    const char *operands; /* how help writes what follows the options */
    const char *summary;
    const char *details; /* paragraphs of its help; NULL: none */
    const struct option_spec *const *groups;
    size_t min_operands, max_operands;
    int (*run)(const struct arguments *arguments);
};

/* args.c: reading the command line. */
extern const struct option_spec general_options[];
extern const struct option_spec pool_options[];
extern const struct option_spec repo_options[];
extern const struct option_spec selection_options[];
extern const struct option_spec site_options[];
int arguments_parse(const struct command *command, int argc, char **argv,
                    struct arguments *arguments);
void arguments_clear(struct arguments *arguments);
void print_options(const struct option_spec *const *groups);

/* commands.c: the table of commands. */
extern const struct command commands[];
extern const size_t command_count;

/* output.c: results and messages. */
/* To the standard output; control characters, which names from a pool may hold, are escaped. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints an error with its causes and advice, releases it, and returns the exit code for it. */
int fail(xvsa_error *error, const char *what);
int exit_code_of(int32_t code);
/* Prints a document as the library made it. Releases it. */
int print_document(char *document);
/* Parses a document of the library and releases its text; NULL after a message. */
json_t *parse_document(char *document, const char *what);
/* Ends the program's output: reports when it could not be written (a full disk, a closed pipe). */
int finish_output(int code);

/* Text of a member, "" when it is not there. Looks only at the named member. */
const char *text_of(const json_t *object, const char *key);
int64_t number_of(const json_t *object, const char *key);
bool is_true(const json_t *object, const char *key);
/* "1.5 GiB" into buffer, which it returns. */
#define TEXT_SIZE 32
const char *size_text(uint64_t bytes, char buffer[TEXT_SIZE]);
const char *duration_text(int64_t ms, char buffer[TEXT_SIZE]);
const char *instant_text(int64_t ms, char buffer[TEXT_SIZE]);

/* table.c: rows with aligned columns. */
struct table;
struct table *table_new(const char *const *titles, size_t columns);
/* cells may be NULL for "". A title that begins with '>' aligns its column to the right. */
void table_add(struct table *table, const char *const *cells);
void table_print(struct table *table); /* and frees it */

/* secret.c: passwords and passphrases. */
struct secret {
    char *bytes; /* with a NUL behind */
    size_t size;
};
struct secret_source {
    const char *what;   /* "password of root" */
    const char *file;   /* NULL: none */
    int64_t descriptor; /* -1: none */
    bool confirm;       /* ask twice at a terminal */
};
/* From the descriptor, the file, or a terminal, whichever comes first. One line end behind it is not
 * part of a secret. */
int secret_read(const struct secret_source *source, struct secret *ret);
void secret_wipe(struct secret *secret);

/* stop.c: signals. The first SIGINT asks for a graceful end, the second for one at once. */
int stop_install(void);
/* Token for calls outside jobs. */
xvsa_cancel *stop_token(void);
/* Waits until a descriptor can be read; 0, EINTR after a request to stop, or another errno. */
int stop_await_input(int descriptor);
/* How often a stop was asked for: 0, 1 or 2. */
int stop_level(void);
/* While a job runs the first signal leaves the token alone. */
void stop_guard_job(bool running);
/* While a member of a site serves, the second one fires the token. */
void stop_guard_service(bool running);
void stop_clear(void);

/* session.c: what a command works with. */
struct session {
    const struct arguments *arguments;
    struct config *config; /* NULL: none */
    xvsa_context *context;
    xvsa_pool *pool;   /* of commands about one */
    xvsa_pool **pools; /* of commands about several */
    size_t pool_count;
    xvsa_proxy **proxies; /* of all pools */
    size_t proxy_count;
    xvsa_target *target;
    xvsa_repo *repo;
    xvsa_site *site;
    xvsa_call call;  /* for every blocking call */
    bool only_reads; /* set by commands that never write to the repository */
    bool joins_site; /* set by the command whose proxies are the members of a site */
};
int session_open(struct session *session, const struct arguments *arguments);
bool session_keeps_state(const struct session *session);
int session_open_pool(struct session *session);
/* Those that --pool names, or all of the configuration. */
int session_open_pools(struct session *session);
int session_open_repo(struct session *session);
int session_init_repo(struct session *session);
int session_open_named_repo(struct session *session, const struct config_repository *repo);
/* site.c */
int session_open_site(struct session *session);
void session_close(struct session *session);

/* document.c: documents "job" from the command line and the configuration. */
int backup_document(const struct session *session, json_t **ret);
int restore_document(const struct arguments *arguments, json_t **ret);
int verify_document(const struct arguments *arguments, json_t **ret);
/* The document "deployment-options"; NULL without memory. */
json_t *deployment_document(const struct arguments *arguments);

/* run.c: plans, and jobs run to their end with their progress shown. */
int make_plan(struct session *session, const json_t *document, xvsa_plan **ret);
int show_plan(struct session *session, const xvsa_plan *plan);
int run_plan(struct session *session, xvsa_plan *plan, const char *verb);

/* progress.c: how far a job is. */
struct progress;
struct progress *progress_new(const struct arguments *arguments, const char *verb);
void progress_update(struct progress *progress, const xvsa_progress *state);
/* Prints a line of its own above the bar. */
void progress_line(struct progress *progress, const char *text);
void progress_end(struct progress *progress);

/* describe.c, stored.c: inventories, restore points and jobs for people. */
void print_reasons(const json_t *reasons, const char *indent);
void print_inventory(json_t *inventory); /* sorts it */
void print_reach(const json_t *reach, bool first);
void print_points(const json_t *points);
void print_point(const json_t *point);
void print_jobs(const json_t *jobs);

/* outcome.c: plans, events and reports for people. */
void print_plan(const json_t *plan);
void print_report(const json_t *report);
/* One line about an event, which the caller frees; NULL for one that is not worth a line. */
char *event_line(const json_t *event);

/* serve_http.c: health and metrics of a member. */
struct serve_http;
int serve_http_start(const char *listen, xvsa_agent *agent, struct serve_http **ret);
void serve_http_stop(struct serve_http *http);
/* The address it listens at, with the port that it got. */
const char *serve_http_address(const struct serve_http *http);

/* notify.c: tells the service manager, when there is one, how a service is. */
void notify(const char *state);

/* site_view.c: documents of a site for people. */
void print_site(const json_t *site);
void print_site_jobs(const json_t *jobs);
void print_site_job(const json_t *job);

/* The commands. */
int command_pool_show(const struct arguments *arguments);
int command_plan_backup(const struct arguments *arguments);
int command_plan_restore(const struct arguments *arguments);
int command_plan_deployment(const struct arguments *arguments);
int command_repo_init(const struct arguments *arguments);
int command_repo_info(const struct arguments *arguments);
int command_repo_verify(const struct arguments *arguments);
int command_backup(const struct arguments *arguments);
int command_points(const struct arguments *arguments);
int command_point_show(const struct arguments *arguments);
int command_point_delete(const struct arguments *arguments);
int command_restore(const struct arguments *arguments);
int command_disk_read(const struct arguments *arguments);
int command_jobs(const struct arguments *arguments);
int command_config_check(const struct arguments *arguments);
int command_serve(const struct arguments *arguments);
int command_site_show(const struct arguments *arguments);
int command_job_submit(const struct arguments *arguments);
int command_job_list(const struct arguments *arguments);
int command_job_show(const struct arguments *arguments);
int command_job_watch(const struct arguments *arguments);
int command_job_wait(const struct arguments *arguments);
int command_job_suspend(const struct arguments *arguments);
int command_job_resume(const struct arguments *arguments);
int command_job_cancel(const struct arguments *arguments);
int command_job_retry(const struct arguments *arguments);

#endif
