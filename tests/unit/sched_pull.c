/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <string.h>

#include "sched/pull.h"

#define MONDAY(hour)  ((hour)*60u)
#define TUESDAY(hour) (1440u + (hour)*60u)
#define SUNDAY(hour)  (6 * 1440u + (hour)*60u)

START_TEST(windows_open_and_close)
{
    struct xv_window items[] = {{MONDAY(22), TUESDAY(4)}, {TUESDAY(3), TUESDAY(6)}};
    struct xv_windows windows = {items, 2};
    struct xv_window_state state = xv_windows_at(&windows, MONDAY(20));
    ck_assert(!state.open);
    ck_assert_uint_eq(state.minutes, 120);
    /* The two overlap: the first one's end changes nothing. */
    state = xv_windows_at(&windows, MONDAY(23));
    ck_assert(state.open);
    ck_assert_uint_eq(state.minutes, 7 * 60);
    state = xv_windows_at(&windows, TUESDAY(6));
    ck_assert(!state.open);
    ck_assert_uint_eq(state.minutes, XV_WEEK_MINUTES - 8 * 60);
}
END_TEST

START_TEST(windows_go_over_the_end_of_the_week)
{
    struct xv_window items[] = {{SUNDAY(22), MONDAY(4)}};
    struct xv_windows windows = {items, 1};
    struct xv_window_state state = xv_windows_at(&windows, SUNDAY(23));
    ck_assert(state.open);
    ck_assert_uint_eq(state.minutes, 5 * 60);
    ck_assert(xv_windows_at(&windows, MONDAY(3)).open);
    ck_assert(!xv_windows_at(&windows, MONDAY(4)).open);
    items[0].end = items[0].begin;
    ck_assert_uint_eq(xv_windows_at(&windows, MONDAY(12)).minutes, XV_MINUTES_NEVER);
    windows.count = 0;
    state = xv_windows_at(&windows, 0);
    ck_assert(state.open && state.minutes == XV_MINUTES_NEVER);
}
END_TEST

/* Minute by minute over a week the state is what was announced. */
START_TEST(the_next_change_is_exact)
{
    struct xv_window items[] = {{100, 300}, {200, 250}, {9000, 50}, {300, 301}};
    struct xv_windows windows = {items, 4};
    for (uint32_t minute = 0; minute < XV_WEEK_MINUTES; minute++) {
        struct xv_window_state now = xv_windows_at(&windows, minute);
        struct xv_window_state next = xv_windows_at(&windows, minute + 1);
        if (now.minutes == 1)
            ck_assert_int_ne(now.open, next.open);
        else
            ck_assert(now.open == next.open && next.minutes == now.minutes - 1);
    }
}
END_TEST

START_TEST(a_curve_follows_the_week)
{
    struct xv_curve_step steps[] = {
        {MONDAY(8), 100}, {MONDAY(18), XV_RATE_UNLIMITED}, {TUESDAY(8), 0}};
    struct xv_curve curve = {steps, 3};
    ck_assert_uint_eq(xv_curve_at(&curve, MONDAY(7)).rate, 0);
    ck_assert_uint_eq(xv_curve_at(&curve, MONDAY(7)).minutes, 60);
    ck_assert_uint_eq(xv_curve_at(&curve, MONDAY(8)).rate, 100);
    ck_assert_uint_eq(xv_curve_at(&curve, MONDAY(8)).minutes, 10 * 60);
    ck_assert_uint_eq(xv_curve_at(&curve, MONDAY(18)).rate, XV_RATE_UNLIMITED);
    ck_assert_uint_eq(xv_curve_at(&curve, MONDAY(18)).minutes, 14 * 60);
    curve.count = 0;
    ck_assert_uint_eq(xv_curve_at(&curve, 5).rate, XV_RATE_UNLIMITED);
    ck_assert_uint_eq(xv_curve_at(&curve, 5).minutes, XV_MINUTES_NEVER);
}
END_TEST

START_TEST(rates_are_shared_fairly)
{
    uint64_t demands[] = {10, XV_RATE_UNLIMITED, 40, 0};
    uint64_t shares[4];
    xv_rate_share(100, demands, 4, shares);
    ck_assert_uint_eq(shares[0], 10);
    ck_assert_uint_eq(shares[1], 50);
    ck_assert_uint_eq(shares[2], 40);
    ck_assert_uint_eq(shares[3], 0);
    xv_rate_share(20, demands, 4, shares);
    ck_assert_uint_eq(shares[0] + shares[1] + shares[2], 20);
    ck_assert(shares[0] >= 6 && shares[1] >= 6 && shares[2] >= 6);
    xv_rate_share(XV_RATE_UNLIMITED, demands, 4, shares);
    ck_assert_uint_eq(shares[1], XV_RATE_UNLIMITED);
    xv_rate_share(2, demands, 4, shares);
    ck_assert_uint_eq(shares[0] + shares[1] + shares[2], 2);
}
END_TEST

START_TEST(transfers_are_admitted_within_budgets)
{
    struct xv_limits limits = {.sr_transfers = 3};
    struct xv_usage usage = {0, 0, 0};
    ck_assert_int_eq(xv_admit_transfer(&limits, &usage, 4, XV_TRANSPORT_NBD).verdict,
                     XV_VERDICT_ADMIT);
    usage.host_connections = 10;
    struct xv_admission answer = xv_admit_transfer(&limits, &usage, 4, XV_TRANSPORT_NBD);
    ck_assert_int_eq(answer.verdict, XV_VERDICT_WAIT);
    ck_assert_str_eq(xv_why_name(answer.why), "HOST_BUSY");
    ck_assert_int_eq(xv_admit_transfer(&limits, &usage, 4, XV_TRANSPORT_HOTADD).verdict,
                     XV_VERDICT_ADMIT);
    usage.sr_transfers = 3;
    ck_assert_int_eq(xv_admit_transfer(&limits, &usage, 4, XV_TRANSPORT_HTTP).why, XV_WHY_SR_BUSY);
    usage.proxy_disks = 4;
    ck_assert_int_eq(xv_admit_transfer(&limits, &usage, 4, XV_TRANSPORT_HTTP).why,
                     XV_WHY_PROXY_BUSY);
    ck_assert_int_eq(xv_admit_transfer(&limits, &usage, 4, 0).verdict, XV_VERDICT_REFUSE);
}
END_TEST

START_TEST(connections_are_divided)
{
    struct xv_limits limits = {0};
    ck_assert_uint_eq(xv_admit_connections(&limits, 0), 2);
    ck_assert_uint_eq(xv_admit_connections(&limits, 9), 1);
    ck_assert_uint_eq(xv_admit_connections(&limits, 12), 0);
    for (uint32_t proxies = 1; proxies < 14; proxies++) {
        uint32_t sum = 0;
        for (uint32_t rank = 0; rank < proxies; rank++)
            sum += xv_admit_host_share(&limits, proxies, rank);
        ck_assert_uint_eq(sum, XV_SCHED_HOST_CONNECTIONS);
    }
}
END_TEST

START_TEST(a_snapshot_needs_space)
{
    const uint64_t gib = UINT64_C(1) << 30;
    struct xv_limits limits = {.sr_free_percent = 10};
    struct xv_planned_snapshot_disk disk = {50 * gib, 0, 3};
    struct xv_snapshot_sr sr = {"lvmoiscsi", false, 200 * gib, 120 * gib, 0};
    /* Thick: 50 and a block map, 20 in reserve, 80 are free. */
    ck_assert_uint_ge(xv_snapshot_bytes(&sr, &disk, 1), 50 * gib);
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, &disk, 1, false).verdict, XV_VERDICT_ADMIT);
    sr.reserved = 20 * gib;
    struct xv_admission answer = xv_admit_snapshot(&limits, &sr, &disk, 1, false);
    ck_assert_int_eq(answer.verdict, XV_VERDICT_WAIT);
    ck_assert_str_eq(xv_why_name(answer.why), "SR_SPACE_LOW");
    sr.used = 135 * gib;
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, &disk, 1, false).verdict, XV_VERDICT_REFUSE);
    sr.type = "ext";
    sr.reserved = 0;
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, &disk, 1, false).verdict, XV_VERDICT_ADMIT);
    limits.sr_free_bytes = 70 * gib;
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, &disk, 1, false).verdict, XV_VERDICT_REFUSE);
    sr.size = 0;
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, &disk, 1, false).verdict, XV_VERDICT_ADMIT);
    ck_assert(xv_sr_is_thick("lvm", false) && !xv_sr_is_thick("lvm", true));
    ck_assert(!xv_sr_is_thick("nfs", false) && !xv_sr_is_thick(NULL, false));
}
END_TEST

START_TEST(chains_stay_short)
{
    struct xv_limits limits = {0};
    struct xv_snapshot_sr sr = {"nfs", false, 0, 0, 0};
    struct xv_planned_snapshot_disk disks[] = {{1, 1, 2}, {1, 1, 25}};
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, disks, 2, false).verdict, XV_VERDICT_ADMIT);
    disks[1].chain = 26;
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, disks, 2, true).verdict, XV_VERDICT_WAIT);
    struct xv_admission answer = xv_admit_snapshot(&limits, &sr, disks, 2, false);
    ck_assert_int_eq(answer.verdict, XV_VERDICT_REFUSE);
    ck_assert_str_eq(xv_why_name(answer.why), "CHAIN_TOO_DEEP");
    limits.chain_depth = 2;
    ck_assert_int_eq(xv_admit_snapshot(&limits, &sr, disks, 1, false).why, XV_WHY_CHAIN_TOO_DEEP);
}
END_TEST

START_TEST(tasks_begin_in_their_time)
{
    struct xv_limits limits = {.job_vms = 2};
    struct xv_window items[] = {{MONDAY(20), MONDAY(23)}};
    struct xv_windows windows = {items, 1};
    struct xv_curve_step steps[] = {{0, 50}, {MONDAY(22), 0}};
    struct xv_curve curve = {steps, 2};
    uint32_t minutes = 0;
    ck_assert_int_eq(xv_admit_task(&limits, &windows, &curve, MONDAY(19), 0, &minutes).why,
                     XV_WHY_OUTSIDE_WINDOW);
    ck_assert_uint_eq(minutes, 60);
    ck_assert_int_eq(xv_admit_task(&limits, &windows, &curve, MONDAY(20), 0, &minutes).verdict,
                     XV_VERDICT_ADMIT);
    ck_assert_uint_eq(minutes, 120);
    ck_assert_int_eq(xv_admit_task(&limits, &windows, &curve, MONDAY(20), 2, &minutes).why,
                     XV_WHY_JOB_BUSY);
    ck_assert_int_eq(xv_admit_task(&limits, &windows, &curve, MONDAY(22), 0, &minutes).why,
                     XV_WHY_RATE_ZERO);
}
END_TEST

START_TEST(units_suit_the_work)
{
    const uint64_t gib = UINT64_C(1) << 30;
    ck_assert_uint_eq(xv_sched_unit_bytes(0, 0, 0), XV_UNIT_BYTES_MIN);
    ck_assert_uint_eq(xv_sched_unit_bytes(1024 * gib, 0, 1), XV_UNIT_BYTES_MAX);
    for (uint64_t bytes = gib; bytes < 4096 * gib; bytes = bytes * 5 / 3) {
        for (size_t proxies = 1; proxies < 40; proxies++) {
            uint64_t unit = xv_sched_unit_bytes(bytes, 0, proxies);
            ck_assert(unit >= XV_UNIT_BYTES_MIN && unit <= XV_UNIT_BYTES_MAX);
            ck_assert_uint_eq(unit % XV_UNIT_BYTES_STEP, 0);
            ck_assert(unit == XV_UNIT_BYTES_MIN || unit * proxies * 64 <= bytes);
            ck_assert_uint_ge(xv_sched_unit_bytes(bytes, 10 * bytes, proxies), unit);
        }
    }
}
END_TEST

/* Two proxies on two hosts; SR 0 on both, SR 1 on the second. */
struct scene {
    bool attached[4];
    struct xv_sched_proxy proxies[2];
    struct xv_sched_site site;
    struct xv_board boards[3];
    struct xv_sched_disk disks[3];
    struct xv_sched_vm vms[3];
    struct xv_waiting tasks[3];
    struct xv_limits limits;
    struct xv_load load;
};

static void set(struct scene *scene)
{
    memset(scene, 0, sizeof *scene);
    scene->attached[0] = scene->attached[2] = scene->attached[3] = true;
    for (size_t i = 0; i < 2; i++)
        scene->proxies[i] = (struct xv_sched_proxy){.host = i, .capacity = 4};
    scene->site = (struct xv_sched_site){.host_count = 2,
                                         .sr_count = 2,
                                         .attached = scene->attached,
                                         .proxies = scene->proxies,
                                         .proxy_count = 2};
    static const char *const keys[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        scene->boards[i] = (struct xv_board){
            .key = keys[i], .units_free = 4, .bytes_left = 100, .owner = XV_SCHED_NONE};
        scene->vms[i] = (struct xv_sched_vm){
            .disks = &scene->disks[i], .disk_count = 1, .key = keys[i], .owner = XV_SCHED_NONE};
        scene->tasks[i] = (struct xv_waiting){&scene->vms[i], i, 0, 0};
    }
}

static size_t next_board(const struct scene *scene, size_t proxy)
{
    return xv_sched_next_board(&scene->site, proxy, scene->boards, 3, &scene->limits, &scene->load);
}

START_TEST(a_proxy_helps_where_it_matters)
{
    struct scene scene;
    set(&scene);
    ck_assert_uint_eq(next_board(&scene, 0), 0);
    scene.boards[2].bytes_left = 300;
    ck_assert_uint_eq(next_board(&scene, 0), 2);
    scene.boards[2].movers = 3;
    ck_assert_uint_eq(next_board(&scene, 0), 0);
    scene.boards[0].priority = -1;
    ck_assert_uint_eq(next_board(&scene, 0), 1);
    scene.boards[0].priority = 0;
    scene.boards[2].priority = 1;
    ck_assert_uint_eq(next_board(&scene, 0), 2);
    scene.boards[2].sr = 1;
    ck_assert_uint_eq(next_board(&scene, 0), 0);
    /* Its own it reads anyway. */
    scene.boards[0].owner = 0;
    ck_assert_uint_eq(next_board(&scene, 0), 1);
    scene.boards[0].owner = XV_SCHED_NONE;
    scene.boards[2].priority = 0;
    /* What few reach comes first. */
    ck_assert_uint_eq(next_board(&scene, 1), 2);
    scene.boards[2].units_free = 0;
    ck_assert_uint_eq(next_board(&scene, 1), 0);
}
END_TEST

START_TEST(pressure_goes_before_size)
{
    struct scene scene;
    uint32_t limits[] = {0, 2};
    set(&scene);
    scene.attached[1] = true;
    scene.site.sr_limits = limits;
    scene.boards[0].bytes_left = 1000;
    scene.boards[0].sr_bytes = 4000;
    scene.boards[1].sr = 1;
    scene.boards[1].sr_bytes = 1200;
    scene.boards[2].units_free = 0;
    /* 4000 over 8 places, 1200 over 2. */
    ck_assert_uint_eq(next_board(&scene, 0), 1);
    scene.boards[1].sr_bytes = 900;
    ck_assert_uint_eq(next_board(&scene, 0), 0);
    /* An SR that is not known is nobody's. */
    scene.boards[2].units_free = 1;
    scene.boards[2].sr = XV_SCHED_NONE;
    ck_assert_uint_eq(next_board(&scene, 0), 0);
    scene.boards[2].owner = 0;
    ck_assert_uint_eq(next_board(&scene, 0), 0);
}
END_TEST

/* SR 1 is reached by the second proxy alone. */
START_TEST(own_disks_in_greater_need_go_before_help)
{
    struct scene scene;
    set(&scene);
    scene.boards[0].sr = 1;
    scene.boards[0].owner = 1;
    ck_assert_uint_eq(next_board(&scene, 1), XV_SCHED_NONE);
    ck_assert_uint_eq(next_board(&scene, 0), 1);
    scene.boards[2].priority = 1;
    ck_assert_uint_eq(next_board(&scene, 1), 2);
    scene.boards[2].priority = 0;
    /* 100 over 4 places, 300 over 8. */
    scene.boards[0].sr_bytes = 100;
    scene.boards[1].sr_bytes = scene.boards[2].sr_bytes = 300;
    ck_assert_uint_eq(next_board(&scene, 1), 1);
    scene.boards[0].sr_bytes = 200;
    ck_assert_uint_eq(next_board(&scene, 1), XV_SCHED_NONE);
    scene.boards[0].units_free = 0;
    ck_assert_uint_eq(next_board(&scene, 1), 1);
    /* Of one SR everybody helps everybody. */
    scene.boards[0].units_free = 4;
    scene.boards[0].sr = 0;
    ck_assert_uint_eq(next_board(&scene, 1), 1);
}
END_TEST

/* Over the network, by the host of another: after its own ones. */
START_TEST(the_network_is_for_who_has_nothing_of_its_own)
{
    struct scene scene;
    set(&scene);
    scene.site.network = true;
    scene.proxies[0].network = true;
    scene.boards[1].sr = 1;
    scene.boards[0].units_free = scene.boards[2].units_free = 0;
    ck_assert_uint_eq(next_board(&scene, 0), 1);
    scene.boards[0].owner = 0;
    scene.boards[0].units_free = 1;
    ck_assert_uint_eq(next_board(&scene, 0), XV_SCHED_NONE);
}
END_TEST

START_TEST(no_board_over_budget)
{
    struct scene scene;
    uint32_t connections[] = {10, 0};
    uint32_t disks[] = {0, 4};
    set(&scene);
    scene.proxies[0].transports = XV_TRANSPORT_NBD;
    scene.load.host_connections = connections;
    scene.load.proxy_disks = disks;
    ck_assert_uint_eq(next_board(&scene, 0), XV_SCHED_NONE);
    ck_assert_uint_eq(next_board(&scene, 1), XV_SCHED_NONE);
    connections[0] = 8;
    disks[1] = 3;
    ck_assert_uint_eq(next_board(&scene, 0), 0);
    ck_assert_uint_eq(next_board(&scene, 1), 0);
    scene.proxies[0].lost = true;
    ck_assert_uint_eq(next_board(&scene, 0), XV_SCHED_NONE);
}
END_TEST

/* Two proxies reach SR 0: a second unit at once needs two free ones, a third one four. */
START_TEST(the_last_units_go_to_who_is_idle)
{
    struct scene scene;
    uint32_t busy[2] = {0, 0};
    set(&scene);
    scene.load.proxy_disks = busy;
    scene.boards[1].sr = scene.boards[2].sr = 1;
    for (uint32_t most = 0; most <= 2; most++) {
        scene.boards[0].units_free = most * 2 + 1;
        busy[0] = most;
        ck_assert_uint_eq(next_board(&scene, 0), 0);
        busy[0] = most + 1;
        ck_assert_uint_eq(next_board(&scene, 0), XV_SCHED_NONE);
    }
    /* All disks of an SR count together. */
    scene.boards[1].sr = 0;
    ck_assert_uint_ne(next_board(&scene, 0), XV_SCHED_NONE);
}
END_TEST

START_TEST(waiting_tasks_go_to_their_owner_first)
{
    struct scene scene;
    set(&scene);
    scene.vms[0].owner = 1;
    scene.vms[2].owner = 0;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 3), 2);
    scene.vms[2].owner = 1;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 3), 1);
    scene.vms[1].owner = 1;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 3), 0);
    scene.disks[0].sr = 1;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 1), XV_SCHED_NONE);
    scene.tasks[2].priority = 5;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 3), 2);
}
END_TEST

START_TEST(a_task_that_nobody_reaches_whole_goes_to_who_reaches_a_part)
{
    struct scene scene;
    set(&scene);
    /* SR 0 on the first host alone. */
    scene.attached[2] = false;
    struct xv_sched_disk disks[] = {{.sr = 0}, {.sr = 1}};
    scene.vms[0].disks = disks;
    scene.vms[0].disk_count = 2;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 1), 0);
    scene.proxies[1].lost = true;
    ck_assert_uint_eq(xv_sched_next_task(&scene.site, 0, scene.tasks, 1), XV_SCHED_NONE);
}
END_TEST

START_TEST(tasks_fill_the_places)
{
    ck_assert(xv_sched_may_own(4, 0, 9));
    ck_assert(xv_sched_may_own(4, 3, 1));
    ck_assert(!xv_sched_may_own(4, 3, 2));
    ck_assert(!xv_sched_may_own(4, 4, 0));
    ck_assert(!xv_sched_may_own(4, 9, 1));
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("pull");
    tcase_add_test(tests, windows_open_and_close);
    tcase_add_test(tests, windows_go_over_the_end_of_the_week);
    tcase_add_test(tests, the_next_change_is_exact);
    tcase_add_test(tests, a_curve_follows_the_week);
    tcase_add_test(tests, rates_are_shared_fairly);
    tcase_add_test(tests, transfers_are_admitted_within_budgets);
    tcase_add_test(tests, connections_are_divided);
    tcase_add_test(tests, a_snapshot_needs_space);
    tcase_add_test(tests, chains_stay_short);
    tcase_add_test(tests, tasks_begin_in_their_time);
    tcase_add_test(tests, units_suit_the_work);
    tcase_add_test(tests, a_proxy_helps_where_it_matters);
    tcase_add_test(tests, pressure_goes_before_size);
    tcase_add_test(tests, own_disks_in_greater_need_go_before_help);
    tcase_add_test(tests, the_network_is_for_who_has_nothing_of_its_own);
    tcase_add_test(tests, no_board_over_budget);
    tcase_add_test(tests, the_last_units_go_to_who_is_idle);
    tcase_add_test(tests, waiting_tasks_go_to_their_owner_first);
    tcase_add_test(tests, a_task_that_nobody_reaches_whole_goes_to_who_reaches_a_part);
    tcase_add_test(tests, tasks_fill_the_places);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("sched_pull")
