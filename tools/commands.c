/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The table of commands. Options that only one command has stand here with it.
 */
#include <stddef.h>

#include "cli.h"

#define AT(field) offsetof(struct arguments, field)
#define LAST                                                                                       \
    {                                                                                              \
        NULL, NULL, NULL, OPTION_FLAG, 0, 0                                                        \
    }

static const struct option_spec init_options[] = {
    {"chunk-size", "BYTES", "unit of change and deduplication, 64K (the default) to 4M",
     OPTION_SIZE, 0, AT(chunk_size)},
    {"kdf-cost", "NUMBER", "cost of guessing the passphrase as a power of two, 10 to 22 (17)",
     OPTION_NUMBER, 0, AT(kdf_cost)},
    LAST,
};

static const struct option_spec backup_options[] = {
    {"job", "NAME", "job of the configuration; takes the place of all other choices", OPTION_TEXT,
     'j', AT(job)},
    {"name", "NAME", "name of the job", OPTION_TEXT, 'n', AT(name)},
    {"cbt", "auto|use|off",
     "changed block tracking: switch it on where possible (auto), use it where it is on, or not",
     OPTION_TEXT, 0, AT(cbt)},
    {"transport", "hotadd|nbd|http", "only this way to read disks; may be repeated", OPTION_TEXTS,
     0, AT(transport)},
    {"insecure-nbd", NULL, "also use NBD without TLS where the pool offers no other", OPTION_FLAG,
     0, AT(insecure_nbd)},
    {"allow-migration", NULL, "do not keep VMs on their host while they are backed up", OPTION_FLAG,
     0, AT(allow_migration)},
    {"parallel", "NUMBER", "VMs at once (as many as the proxies take)", OPTION_NUMBER, 0,
     AT(parallel)},
    {"refuse", "REASON", "fail a VM for which this reason holds (CBT_RESET); may be repeated",
     OPTION_TEXTS, 0, AT(refuse)},
    {"compression", "LEVEL", "zstd level, -7 to 19 (1)", OPTION_NUMBER, 0, AT(compression)},
    LAST,
};

static const struct option_spec deployment_options[] = {
    {"deployment", NULL, "what proxies reach, what a loss would cost, where further ones help",
     OPTION_FLAG, 0, AT(deployment)},
    {"html", "FILE", "draw it as a page for a browser; - is the standard output", OPTION_TEXT, 0,
     AT(html)},
    {"force", NULL, "replace an existing file", OPTION_FLAG, 'f', AT(force)},
    {"transport", "hotadd|nbd|http", "only this way to move disks; may be repeated", OPTION_TEXTS,
     0, AT(transport)},
    {"insecure-nbd", NULL, "also use NBD without TLS where the pool offers no other", OPTION_FLAG,
     0, AT(insecure_nbd)},
    {"any-host", NULL, "also count proxies that reach a disk only through another host",
     OPTION_FLAG, 0, AT(any_host)},
    LAST,
};

static const struct option_spec restore_options[] = {
    {"name", "NAME", "name of the new VM; {name} stands for the one in the backup", OPTION_TEXT,
     'n', AT(name)},
    {"sr", "SR", "storage repository for disks without another choice, by name or uuid",
     OPTION_TEXT, 's', AT(sr)},
    {"sr-map", "OLD=NEW",
     "disks that were on one storage repository go to another; may be repeated", OPTION_TEXTS, 0,
     AT(sr_map)},
    {"disk-map", "VDI=SR",
     "the disk with this VDI uuid goes to a storage repository; may be repeated", OPTION_TEXTS, 0,
     AT(disk_map)},
    {"network", "OLD=[NEW]", "connect interfaces of one network to another, or leave them out",
     OPTION_TEXTS, 0, AT(network)},
    {"mac", "auto|keep|renew", "MAC addresses: keep those that nobody has (auto), all, or none",
     OPTION_TEXT, 0, AT(mac)},
    {"transport", "hotadd|http", "only this way to write disks; may be repeated", OPTION_TEXTS, 0,
     AT(transport)},
    {"refuse", "REASON", "fail a VM for which this reason holds; may be repeated", OPTION_TEXTS, 0,
     AT(refuse)},
    LAST,
};

static const struct option_spec read_options[] = {
    {"output", "FILE", "file to write, sparse; - or none: the standard output", OPTION_TEXT, 'o',
     AT(output)},
    {"offset", "BYTES", "begin there (0)", OPTION_SIZE, 0, AT(offset)},
    {"length", "BYTES", "read so much (up to the end)", OPTION_SIZE, 0, AT(length)},
    {"force", NULL, "replace an existing file", OPTION_FLAG, 'f', AT(force)},
    LAST,
};

static const struct option_spec points_options[] = {
    {"vm", "VM", "only those of a VM, by name or uuid", OPTION_TEXT, 0, AT(vm)},
    LAST,
};

static const struct option_spec verify_options[] = {
    {"quick", NULL, "only that everything is there, without reading all data", OPTION_FLAG, 0,
     AT(quick)},
    LAST,
};

static const struct option_spec delete_options[] = {
    {"yes", NULL, "do not ask", OPTION_FLAG, 'y', AT(yes)},
    LAST,
};

static const struct option_spec jobs_options[] = {
    {"limit", "NUMBER", "show at most so many (100)", OPTION_NUMBER, 0, AT(limit)},
    LAST,
};

static const struct option_spec serve_options[] = {
    {"member", "NAME", "name of this member; default: that of the configuration", OPTION_TEXT, 0,
     AT(member)},
    {"listen", "ADDRESS:PORT", "where health and metrics are served (127.0.0.1:9190)", OPTION_TEXT,
     0, AT(listen)},
    {"pool", "NAME", "pool of the configuration that it serves", OPTION_TEXTS, 'p', AT(pool)},
    LAST,
};

static const struct option_spec submit_options[] = {
    {"document", "FILE", "document \"job\" to submit; - reads the standard input", OPTION_TEXT, 0,
     AT(document)},
    {"pool", "NAME", "pool, by uuid or name; may be repeated", OPTION_TEXTS, 'p', AT(pool)},
    {"repo", "NAME", "repository, as members call it", OPTION_TEXT, 'r', AT(repo)},
    {"priority", "NUMBER", "jobs of a higher one go first, -100 to 100 (0)", OPTION_NUMBER, 0,
     AT(priority)},
    {"time-limit", "SECONDS", "stop what is not done then (no limit)", OPTION_NUMBER, 0,
     AT(time_limit)},
    {"wait", NULL, "wait for its end, and exit as the job ended", OPTION_FLAG, 'w', AT(wait)},
    LAST,
};

static const struct option_spec cancel_options[] = {
    {"now", NULL, "do not finish the VMs under way", OPTION_FLAG, 0, AT(now)},
    LAST,
};

static const struct option_spec *const general_group[] = {general_options, NULL};
static const struct option_spec *const pool_group[] = {pool_options, general_options, NULL};
static const struct option_spec *const backup_group[] = {
    selection_options, backup_options, pool_options, repo_options, general_options, NULL};
static const struct option_spec *const deployment_group[] = {deployment_options, selection_options,
                                                             pool_options, general_options, NULL};
static const struct option_spec *const restore_group[] = {restore_options, pool_options,
                                                          repo_options, general_options, NULL};
static const struct option_spec *const repo_group[] = {repo_options, general_options, NULL};
static const struct option_spec *const init_group[] = {init_options, repo_options, general_options,
                                                       NULL};
static const struct option_spec *const verify_group[] = {verify_options, repo_options,
                                                         general_options, NULL};
static const struct option_spec *const points_group[] = {points_options, repo_options,
                                                         general_options, NULL};
static const struct option_spec *const delete_group[] = {delete_options, repo_options,
                                                         general_options, NULL};
static const struct option_spec *const read_group[] = {read_options, repo_options, general_options,
                                                       NULL};
static const struct option_spec *const jobs_group[] = {jobs_options, general_options, NULL};

static const struct option_spec *const serve_group[] = {serve_options, site_options,
                                                        general_options, NULL};
static const struct option_spec *const site_group[] = {site_options, general_options, NULL};
static const struct option_spec *const submit_group[] = {
    selection_options, backup_options, submit_options, site_options, general_options, NULL};
static const struct option_spec *const site_jobs_group[] = {jobs_options, site_options,
                                                            general_options, NULL};
static const struct option_spec *const cancel_group[] = {cancel_options, site_options,
                                                         general_options, NULL};

#define SELECTION_TEXT                                                                             \
    "VMs are chosen by name or uuid, or by --all, --tag and --pattern; what several ways choose\n" \
    "is taken together. --exclude-disk takes [VM:]DISK, where DISK is a VDI's uuid or name, or "   \
    "a\n"                                                                                          \
    "position such as 0 or xvda."
#define POINT_TEXT                                                                                 \
    "POINT is a restore point's id, a beginning of it of 6 digits or more, or latest:VM."

#define JOB_TEXT "JOB is the id of a job of the site, or a beginning of it of 4 digits or more."

const struct command commands[] = {
    {"pool show", "", "Show a pool: hosts, storage, networks, VMs and what proxies reach", NULL,
     pool_group, 0, 0, command_pool_show},
    {"plan backup", "[VM...]", "Show what a backup would do, and why", SELECTION_TEXT, backup_group,
     0, SIZE_MAX, command_plan_backup},
    {"plan restore", "POINT...", "Show what a restore would do, and why", POINT_TEXT, restore_group,
     1, SIZE_MAX, command_plan_restore},
    {"plan", "--deployment", "Show what proxies reach, and where further ones would help",
     "Tells for every pool of the configuration, or those that --pool names (it may be repeated),\n"
     "which proxies reach which disk; which VMs nobody reaches, or nobody would after the loss of\n"
     "one proxy or one host; and the fewest further proxies that would cure that. Without --all,\n"
     "--tag and --pattern: about all VMs but those that proxies run on.",
     deployment_group, 0, 0, command_plan_deployment},
    {"backup", "[VM...]", "Back up VMs", SELECTION_TEXT, backup_group, 0, SIZE_MAX, command_backup},
    {"restore", "POINT...", "Restore restore points to new VMs", POINT_TEXT, restore_group, 1,
     SIZE_MAX, command_restore},
    {"points", "", "List restore points", NULL, points_group, 0, 0, command_points},
    {"point show", "POINT", "Show a restore point and its disks", POINT_TEXT, repo_group, 1, 1,
     command_point_show},
    {"point delete", "POINT", "Delete a restore point", POINT_TEXT, delete_group, 1, 1,
     command_point_delete},
    {"disk read", "POINT DISK", "Copy a disk of a restore point to a file or a pipe",
     POINT_TEXT "\nDISK is a position (0, xvda) or the uuid of the VDI it was read from.",
     read_group, 2, 2, command_disk_read},
    {"repo init", "", "Make a repository", NULL, init_group, 0, 0, command_repo_init},
    {"repo info", "", "Show a repository's parameters and sizes", NULL, repo_group, 0, 0,
     command_repo_info},
    {"repo verify", "[POINT]", "Read what is stored, all of it or a restore point, and check it",
     POINT_TEXT, verify_group, 0, 1, command_repo_verify},
    {"jobs", "", "List the jobs that the state file knows", NULL, jobs_group, 0, 0, command_jobs},
    {"serve", "", "Work on a site's jobs as one of its members",
     "Runs on a proxy VM until SIGTERM, at which it drains: it finishes what is under way within\n"
     "\"drain_ms\", and leaves the rest at a checkpoint to the others. A second signal does so at\n"
     "once.",
     serve_group, 0, 0, command_serve},
    {"site show", "", "Show a site's members, pools and coordinators", NULL, site_group, 0, 0,
     command_site_show},
    {"job submit", "[VM...]", "Give a job to a site", SELECTION_TEXT, submit_group, 0, SIZE_MAX,
     command_job_submit},
    {"job list", "", "List a site's jobs", NULL, site_jobs_group, 0, 0, command_job_list},
    {"job show", "JOB", "Show a job of a site", JOB_TEXT, site_group, 1, 1, command_job_show},
    {"job watch", "JOB", "Follow a job of a site to its end", JOB_TEXT, site_group, 1, 1,
     command_job_watch},
    {"job wait", "JOB", "Wait for a job of a site, and exit as it ended", JOB_TEXT, site_group, 1,
     1, command_job_wait},
    {"job suspend", "JOB", "Stop a job at a checkpoint", JOB_TEXT, site_group, 1, 1,
     command_job_suspend},
    {"job resume", "JOB", "Go on with a suspended job", JOB_TEXT, site_group, 1, 1,
     command_job_resume},
    {"job cancel", "JOB", "Cancel a job; finished VMs are kept", JOB_TEXT, cancel_group, 1, 1,
     command_job_cancel},
    {"job retry", "JOB", "Submit the VMs of a job anew that were not done", JOB_TEXT, site_group, 1,
     1, command_job_retry},
    {"config check", "FILE", "Check a configuration file", NULL, general_group, 1, 1,
     command_config_check},
};
const size_t command_count = sizeof commands / sizeof commands[0];
