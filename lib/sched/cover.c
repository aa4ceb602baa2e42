/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Branch and bound: of the need with the fewest choices left, each choice is tried; what was tried
 * is closed to its later siblings, so that no set is seen twice. The bound is the sum of the
 * demands of needs that share no host.
 */
#include "sched/cover.h"

#include <stdlib.h>
#include <string.h>

struct search {
    size_t hosts, count;
    const size_t *ranks;
    const struct xv_cover_need *needs;
    bool *dropped;   /* needs that another one implies */
    uint32_t *now;   /* additions of the branch */
    bool *closed;    /* hosts that get no more in this branch */
    bool *marked;    /* scratch of the bound */
    size_t *choices; /* stack: the hosts tried at each depth */
    uint32_t sum;    /* of now */
    uint32_t steps;  /* left */
    struct xv_cover *best;
};

static uint32_t missing(const struct search *s, const struct xv_cover_need *need)
{
    uint32_t have = 0;
    for (size_t host = 0; host < s->hosts; host++) {
        if (need->hosts[host])
            have += need->distinct && s->now[host] > 1 ? 1 : s->now[host];
    }
    return have < need->demand ? need->demand - have : 0;
}

static bool counts(const struct search *s, const struct xv_cover_need *need, size_t host)
{
    return need->hosts[host] && !(need->distinct && s->now[host] > 0);
}

static bool is_open(const struct search *s, const struct xv_cover_need *need, size_t host)
{
    return counts(s, need, host) && !s->closed[host];
}

/* How many needs an addition to the host would serve. */
static size_t value_of(const struct search *s, size_t host)
{
    size_t value = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (!s->dropped[i] && counts(s, &s->needs[i], host) && missing(s, &s->needs[i]) > 0)
            value++;
    }
    return value;
}

/* The need implies the other when whatever satisfies it satisfies that, too. */
static bool implies(const struct search *s, size_t one, size_t other)
{
    const struct xv_cover_need *a = &s->needs[one];
    const struct xv_cover_need *b = &s->needs[other];
    if (a->demand < b->demand || (b->distinct && !a->distinct && b->demand > 1))
        return false;
    bool equal = a->demand == b->demand && a->distinct == b->distinct;
    for (size_t host = 0; host < s->hosts; host++) {
        if (a->hosts[host] && !b->hosts[host])
            return false;
        equal = equal && a->hosts[host] == b->hosts[host];
    }
    return !equal || one < other;
}

static void drop_implied(struct search *s)
{
    for (size_t i = 0; i < s->count; i++) {
        for (size_t j = 0; j < s->count && !s->dropped[i]; j++) {
            if (i != j && !s->dropped[j] && implies(s, j, i))
                s->dropped[i] = true;
        }
    }
}

static void keep(struct search *s)
{
    s->best->sum = s->sum;
    memcpy(s->best->additions, s->now, s->hosts * sizeof *s->now);
}

/* Takes the host that serves most needs, again and again. */
static void solve_greedily(struct search *s)
{
    for (;;) {
        size_t best = s->hosts;
        size_t most = 0;
        for (size_t host = 0; host < s->hosts; host++) {
            size_t value = value_of(s, host);
            if (value > most || (value == most && value > 0 && s->ranks[host] < s->ranks[best])) {
                best = host;
                most = value;
            }
        }
        if (best == s->hosts)
            break;
        s->now[best]++;
        s->sum++;
    }
    keep(s);
    memset(s->now, 0, s->hosts * sizeof *s->now);
    s->sum = 0;
}

/* The open need with the fewest open hosts; count: none is open. */
static size_t tightest(const struct search *s, size_t *ret_open)
{
    size_t best = s->count;
    for (size_t i = 0; i < s->count; i++) {
        if (s->dropped[i] || missing(s, &s->needs[i]) == 0)
            continue;
        size_t open = 0;
        for (size_t host = 0; host < s->hosts; host++)
            open += is_open(s, &s->needs[i], host) ? 1 : 0;
        if (best == s->count || open < *ret_open) {
            best = i;
            *ret_open = open;
        }
    }
    return best;
}

static bool is_apart(const struct search *s, const struct xv_cover_need *need)
{
    for (size_t host = 0; host < s->hosts; host++) {
        if (is_open(s, need, host) && s->marked[host])
            return false;
    }
    return true;
}

/* Additions that are needed at least from here on. */
static uint32_t bound(struct search *s)
{
    uint32_t sum = 0;
    memset(s->marked, 0, s->hosts * sizeof *s->marked);
    for (size_t i = 0; i < s->count; i++) {
        const struct xv_cover_need *need = &s->needs[i];
        uint32_t lacking = s->dropped[i] ? 0 : missing(s, need);
        if (lacking == 0 || !is_apart(s, need))
            continue;
        sum += lacking;
        for (size_t host = 0; host < s->hosts; host++)
            s->marked[host] |= is_open(s, need, host);
    }
    return sum;
}

/* Hosts that serve the need, the most useful first. */
static size_t list_choices(const struct search *s, const struct xv_cover_need *need, size_t *list)
{
    size_t count = 0;
    for (size_t host = 0; host < s->hosts; host++) {
        if (!is_open(s, need, host))
            continue;
        size_t place = count++;
        size_t value = value_of(s, host);
        while (place > 0) {
            size_t before = value_of(s, list[place - 1]);
            if (before > value || (before == value && s->ranks[list[place - 1]] < s->ranks[host]))
                break;
            list[place] = list[place - 1];
            place--;
        }
        list[place] = host;
    }
    return count;
}

/* Depth is at most the sum of the best cover so far. */
static void branch(struct search *s, size_t *list)
{
    size_t open = 0;
    size_t need = tightest(s, &open);
    if (need == s->count) {
        keep(s);
        return;
    }
    if (s->steps == 0 || open == 0 || s->sum + bound(s) >= s->best->sum)
        return;
    s->steps--;
    size_t count = list_choices(s, &s->needs[need], list);
    for (size_t i = 0; i < count; i++) {
        s->now[list[i]]++;
        s->sum++;
        branch(s, list + count);
        s->now[list[i]]--;
        s->sum--;
        s->closed[list[i]] = true;
    }
    for (size_t i = 0; i < count; i++)
        s->closed[list[i]] = false;
}

static void free_search(struct search *s)
{
    free(s->dropped);
    free(s->now);
    free(s->closed);
    free(s->marked);
    free(s->choices);
}

int xv_cover_solve(size_t hosts, const size_t *ranks, const struct xv_cover_need *needs,
                   size_t count, struct xv_cover *ret, xvsa_error **error)
{
    struct search s = {.hosts = hosts,
                       .count = count,
                       .ranks = ranks,
                       .needs = needs,
                       .steps = XV_COVER_STEPS,
                       .best = ret};
    s.dropped = calloc(count + 1, sizeof *s.dropped);
    s.now = calloc(hosts + 1, sizeof *s.now);
    s.closed = calloc(hosts + 1, sizeof *s.closed);
    s.marked = calloc(hosts + 1, sizeof *s.marked);
    if (s.dropped == NULL || s.now == NULL || s.closed == NULL || s.marked == NULL) {
        free_search(&s);
        return xv_fail_memory(error);
    }
    drop_implied(&s);
    solve_greedily(&s);
    s.choices = calloc((size_t)(ret->sum + 1) * (hosts + 1), sizeof *s.choices);
    if (s.choices == NULL) {
        free_search(&s);
        return xv_fail_memory(error);
    }
    ret->at_least = bound(&s);
    branch(&s, s.choices);
    ret->exact = s.steps > 0 || ret->sum == ret->at_least;
    if (ret->exact)
        ret->at_least = ret->sum;
    free_search(&s);
    return 0;
}
