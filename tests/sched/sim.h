/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A discrete-event simulation of a site that is scheduled by lib/sched. Time is simulated, in
 * seconds; data flow like fluids through the links of proxies, hosts, SRs and the target, shared
 * max-min fairly.
 */
#ifndef XV_TESTS_SCHED_SIM_H
#define XV_TESTS_SCHED_SIM_H

#include "sched/assignment.h"
#include "sched/pull.h"

#define SIM_POOLS   4
#define SIM_HOSTS   16
#define SIM_SRS     16
#define SIM_PROXIES 16
#define SIM_DISKS   16
#define SIM_PLACES  16
#define SIM_FAULTS  16
#define SIM_STEPS   16
#define SIM_NAME    32

/* How long things take, seconds. */
#define SIM_PREPARE    5.0  /* snapshot and map of a VM */
#define SIM_TAKE_OVER  2.0  /* until a task's new owner has read its facts */
#define SIM_CLAIM      0.3  /* of a unit: claim, connections, and its checkpoint at the end */
#define SIM_COMMIT     1.0  /* of a VM's restore point */
#define SIM_LEASE      15.0 /* until a lost proxy is noticed */
#define SIM_ELECTION   2.0  /* until another coordinator has taken over, after that */
#define SIM_CHECKPOINT 5.0

struct sim_unit {
    double left;    /* bytes, as of the last checkpoint */
    size_t claimer; /* XV_SCHED_NONE: free */
    bool done;
};

struct sim_disk {
    struct sim_unit *units;
    size_t unit_count, free_count, done_count;
    double left;
    uint32_t movers;
};

enum sim_state {
    SIM_WAITING,
    SIM_PREPARING,
    SIM_OPEN,
    SIM_COMMITTING,
    SIM_DONE,
    SIM_FAILED,
};

struct sim_task {
    enum sim_state state;
    size_t owner;    /* who really has it, unlike the assignment's wish */
    double ready_at; /* of PREPARING, COMMITTING, and of OPEN after a take-over */
    size_t rank;
    int32_t priority;
    double done_at;
    uint64_t opened;
    uint64_t
        outstanding; /* when it was given away first, with proxies: what its units are cut by */
    size_t proxies;  /* 0: not given away yet */
    char key[SIM_NAME];
    struct xv_sched_disk wishes[SIM_DISKS];
    struct sim_disk disks[SIM_DISKS];
};

/* One disk at once of a proxy. */
struct sim_place {
    bool busy;
    size_t vm, disk, unit, host;
    uint32_t connections;
    double left, since, at_checkpoint, rate;
};

struct sim_proxy {
    char key[SIM_NAME];
    double rate; /* bytes per second of its link */
    double first_rate;
    bool alive;
    double died_at;
    bool noticed;
    double bytes, last_busy;
    struct sim_place places[SIM_PLACES];
};

struct sim_pool {
    struct xv_sched_site site;
    bool attached[SIM_HOSTS * SIM_SRS];       /* [host * site.sr_count + sr] */
    bool attached_first[SIM_HOSTS * SIM_SRS]; /* before any fault */
    struct xv_sched_proxy workers[SIM_PROXIES];
    struct sim_proxy proxies[SIM_PROXIES];
    char host_keys[SIM_HOSTS][SIM_NAME];
    const char *host_key_list[SIM_HOSTS];
    char sr_keys[SIM_SRS][SIM_NAME];
    double host_rates[SIM_HOSTS], sr_rates[SIM_SRS]; /* 0: no limit */
    uint32_t sr_limits[SIM_SRS];
    struct xv_sched_vm *vms;
    struct sim_task *tasks;
    size_t vm_count;
    struct xv_assignment *assignment;
    double coordinator_from; /* nobody coordinates before */
    double lost_host_at;     /* and not yet acted upon; 0: none was */
};

enum sim_fault_kind { SIM_LOSE_PROXY, SIM_LOSE_HOST, SIM_SET_RATE, SIM_RETURN_PROXY };

struct sim_fault {
    enum sim_fault_kind kind;
    double at;
    size_t pool, subject;
    double rate;
    bool applied;
};

struct sim {
    struct sim_pool pools[SIM_POOLS];
    size_t pool_count;
    struct sim_fault faults[SIM_FAULTS];
    size_t fault_count;
    struct xv_limits limits;
    struct xv_window windows[SIM_STEPS];
    size_t window_count;
    struct xv_curve_step curve[SIM_STEPS]; /* of the target's link, bytes per second */
    size_t curve_count;
    uint32_t start_minute;
    uint64_t unit_bytes; /* 0: chosen */

    /* state and outcome */
    double now, open_time, makespan, open_makespan;
    double resent,
        resent_most; /* bytes moved again; most of one transfer, in seconds of its proxy's link */
    size_t opened, done, failed, events, violations;
    char first_violation[256];
};

/* Makes room for VMs before they are added. Memory is sim_free's to give back. */
void sim_reserve(struct sim_pool *pool, size_t vms);
void sim_add_vm(struct sim_pool *pool, const char *key, size_t host, int32_t priority,
                bool is_protected);
/* To the VM added last. */
void sim_add_disk(struct sim_pool *pool, size_t sr, uint64_t bytes);
void sim_free(struct sim *sim);

/* Runs to the end. Whatever breaks a rule counts as a violation. */
void sim_run(struct sim *sim);
/* Seconds that no schedule of the VMs that did not fail can beat; after sim_run. */
double sim_bound(const struct sim *sim);
/* How much of the time up to end the operation windows are open. */
double sim_open_time(const struct sim *sim, double end);

/* Internal. */
void sim_rates(struct sim *sim);
void sim_violate(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct xv_window_state sim_window(const struct sim *sim, double now, double *ret_until);
double sim_target_rate(const struct sim *sim, double now, double *ret_until);
void sim_change(struct sim *sim);
void sim_notice(struct sim *sim);
void sim_dispatch(struct sim *sim);
void sim_check(struct sim *sim);
size_t sim_coordinator(const struct sim *sim, const struct sim_pool *pool);

#endif
