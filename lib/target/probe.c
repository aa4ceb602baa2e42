/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whether conditional writes hold is found out, not believed: several writers race for the same names,
 * and each name must have exactly one winner whose content is what is stored.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "target/internal.h"

#define NAMES   4
#define WRITERS 8

enum { GATE_SHUT, GATE_OPEN, GATE_VOID };

struct race {
    struct xv_target *target;
    const struct xv_call *call;
    pthread_mutex_t lock; /* guards gate */
    pthread_cond_t moved;
    int gate;
    char names[NAMES][64];
};

struct writer {
    struct race *race;
    uint32_t number;
    int results[NAMES];
    xvsa_error *error; /* of the first unexpected failure */
};

static void content_of(const struct race *race, int name, uint32_t writer, char *text, size_t size)
{
    snprintf(text, size, "%s written by %u\n", race->names[name], writer);
}

/* Waits until all writers are there; false when the race was called off. */
static bool wait_gate(struct race *race)
{
    pthread_mutex_lock(&race->lock);
    while (race->gate == GATE_SHUT)
        pthread_cond_wait(&race->moved, &race->lock);
    bool open = race->gate == GATE_OPEN;
    pthread_mutex_unlock(&race->lock);
    return open;
}

static void *run_writer(void *argument)
{
    struct writer *writer = argument;
    struct race *race = writer->race;
    for (int i = 0; wait_gate(race) && i < NAMES; i++) {
        char text[128];
        content_of(race, i, writer->number, text, sizeof text);
        xvsa_buffer piece = {text, strlen(text)};
        xvsa_error *error = NULL;
        writer->results[i] = xv_target_put(race->target, race->names[i], &piece, 1,
                                           XVSA_PUT_IF_ABSENT, race->call, &error);
        bool expected = writer->results[i] == 0 || writer->results[i] == XVSA_ERR_EXISTS ||
                        writer->results[i] == XVSA_ERR_UNSUPPORTED;
        if (!expected && writer->error == NULL)
            writer->error = error;
        else
            xv_error_clear(&error);
    }
    return NULL;
}

/* Exactly one winner, and its content is there. */
static int judge_name(struct race *race, const struct writer *writers, int name, bool *ret_holds,
                      xvsa_error **error)
{
    int winner = -1;
    for (int i = 0; i < WRITERS; i++) {
        if (writers[i].results[name] == 0 && winner >= 0)
            *ret_holds = false;
        if (writers[i].results[name] == 0)
            winner = i;
    }
    if (winner < 0)
        *ret_holds = false;
    if (!*ret_holds)
        return 0;
    char text[128];
    content_of(race, name, (uint32_t)winner, text, sizeof text);
    uint8_t *data = NULL;
    uint64_t length = 0;
    int rc = xv_target_get_all(race->target, race->names[name], sizeof text, &data, &length,
                               race->call, error);
    if (rc != 0)
        return rc;
    *ret_holds = length == strlen(text) && memcmp(data, text, strlen(text)) == 0;
    free(data);
    return 0;
}

static void open_gate(struct race *race, int state)
{
    pthread_mutex_lock(&race->lock);
    race->gate = state;
    pthread_cond_broadcast(&race->moved);
    pthread_mutex_unlock(&race->lock);
}

static int run_race(struct race *race, struct writer *writers, xvsa_error **error)
{
    pthread_t threads[WRITERS];
    pthread_mutex_init(&race->lock, NULL);
    pthread_cond_init(&race->moved, NULL);
    for (int i = 0; i < WRITERS; i++)
        writers[i] = (struct writer){.race = race, .number = (uint32_t)i};
    int started = 0;
    int rc = 0;
    while (rc == 0 && started < WRITERS) {
        rc = xv_thread_start("xvsa-probe", false, run_writer, &writers[started], &threads[started],
                             error);
        started += rc == 0;
    }
    open_gate(race, rc == 0 ? GATE_OPEN : GATE_VOID);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&race->moved);
    pthread_mutex_destroy(&race->lock);
    return rc;
}

int xv_target_probe(struct xv_target *target, bool *ret_if_absent, const struct xv_call *call,
                    xvsa_error **error)
{
    struct race race = {.target = target, .call = call};
    uint8_t dice[8];
    int rc = xv_random(dice, sizeof dice, error);
    if (rc != 0)
        return rc;
    char hex[17];
    xv_hex_encode(dice, sizeof dice, hex);
    for (int i = 0; i < NAMES; i++)
        snprintf(race.names[i], sizeof race.names[i], "probe/%s-%d", hex, i);
    struct writer writers[WRITERS];
    rc = run_race(&race, writers, error);
    bool holds = rc == 0;
    for (int i = 0; i < WRITERS && rc == 0; i++) {
        if (writers[i].error != NULL) {
            rc = (int)xvsa_error_code(writers[i].error);
            if (error != NULL)
                *error = xvsa_error_ref(writers[i].error);
        }
    }
    for (int i = 0; i < NAMES && rc == 0 && holds; i++)
        rc = judge_name(&race, writers, i, &holds, error);
    for (int i = 0; i < WRITERS; i++)
        xvsa_error_unref(writers[i].error);
    for (int i = 0; i < NAMES; i++) {
        /* Left-overs harm nobody, and credentials may lack the right to remove. */
        xvsa_error *ignored = NULL;
        if (xv_target_remove(target, race.names[i], call, &ignored) != 0)
            xv_error_clear(&ignored);
    }
    if (rc == 0)
        *ret_if_absent = holds;
    return rc;
}
