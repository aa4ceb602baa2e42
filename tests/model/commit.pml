/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works (docs/format.md, sections 9, 10 and 12): commits, fencing, progress and adoption beside the
 * collection of garbage, for one chunk of one disk. Chunks do not meet in the protocol.
 *
 * An append to the journal is one step, which looks at the state that it follows. Everything else is a
 * step of its own, so that each process may be paused, or die, between any two: a process that makes no
 * further step is a dead one. Packs, sessions and points are bits of masks. A pack holds the chunk as one
 * work read it.
 *
 * With POWER it is checked against a loss of power, without it against the collection of garbage: what is
 * in the journal and not durable, and what is deleted, do not meet either.
 *
 * Each BUG_ takes one rule away; the checker must find what comes of it (test_model.py).
 */

#define OWNER_1 1 /* sessions */
#define OWNER_2 2
#define PART    4
#define OWNERS  (OWNER_1 | OWNER_2)

#define OLD_PACK 1 /* packs: one that was there, those of the sessions, copies of the collection */
#define PACK(session) (session << 1)
#define COPY(work) (8 << work)

#define OLD_POINT 1 /* points; the one of work w is 1 << w */

byte content[3];    /* by work: packs that have, or will have, what it read; never changes */
byte there = OLD_PACK;
byte durable = OLD_PACK;
bool off = false;   /* the power failed: nobody makes a step */

/* The journal's: */
byte indexed = OLD_PACK;
byte condemned = 0;
byte acting = 0;    /* sessions that are active */
byte highest = 0;   /* token of the key */
byte open = 0;      /* work that is open; 0: none */
byte told = 0;      /* packs that progress of the open work refers to */
byte points = OLD_POINT;

byte newest = 0;    /* what highest must be: the highest token that ever began */

/* Work 1 reads what the old point has. */
#define NEEDED(work) ((points & (work == 1 -> (OLD_POINT | 2) : 4)) != 0)
#define SAFE                                                                                       \
    assert((!NEEDED(1) || (there & indexed & content[1]) != 0) &&                                  \
           (!NEEDED(2) || (there & indexed & content[2]) != 0))

/* Any one bit of a mask that is not 0. */
inline choose(mask, one)
{
    if
    :: (mask & 1) != 0 -> one = 1
    :: (mask & 2) != 0 -> one = 2
    :: (mask & 4) != 0 -> one = 4
    :: (mask & 8) != 0 -> one = 8
    :: (mask & 16) != 0 -> one = 16
    :: (mask & 32) != 0 -> one = 32
    fi
}

/* Puts the chunk into a new pack and makes it durable. */
inline upload(fresh)
{
#ifdef POWER
    atomic { !off -> there = there | fresh };
#ifndef BUG_NOT_DURABLE
    atomic { !off -> durable = durable | fresh }
#endif
#else
    there = there | fresh
#endif
}

/* One entry: INDEX_ADD of an added pack, if any, and PROGRESS with where the chunk is. */
inline checkpoint(who, added, where, what)
{
    if
    :: (acting & who) != 0 ->
        indexed = indexed | added;
        if
#ifdef BUG_STALE_PROGRESS
        :: true -> told = told | where
#else
        :: open == what -> told = told | where
        :: else
#endif
        fi
    :: else
    fi
}

/* An attempt of the work. Where it learns later than at its beginning what is condemned, it may refer to
 * less: so it learns it there. */
proctype Owner(byte session; byte token; byte work)
{
    byte place = 0;
    byte seen = 0; /* condemned by the time of its view */

#ifdef BUG_VIEW_BEFORE_BEGIN
    atomic { !off -> seen = condemned };
#endif
    atomic {
        !off;
        if
#ifdef BUG_TOKEN
        :: true
#else
        :: token <= highest -> goto done
        :: else
#endif
        fi;
        highest = token;
        newest = (token > newest -> token : newest);
        acting = (acting & ~OWNERS) | session;
        if
        :: open == work
        :: else ->
            open = work;
#ifndef BUG_KEPT_FACTS
            told = 0
#endif
        fi;
#ifndef BUG_VIEW_BEFORE_BEGIN
        seen = condemned
#endif
    }
    if
    /* Found in the index. */
    :: atomic {
        !off && (indexed & content[work] & ~seen) != 0;
        choose((indexed & content[work] & ~seen), place)
    }
    /* Adopted. */
    :: atomic {
#ifdef BUG_ADOPT_CONDEMNED
        !off && told != 0;
        choose(told, place)
#else
        !off && (told & indexed & ~seen) != 0;
        choose((told & indexed & ~seen), place)
#endif
    }
    :: place = PACK(session);
        upload(place);
        atomic { !off -> checkpoint(session, place, place, work) }
    fi;
    if
    :: skip
    /* Parked: what was told stays. */
    :: atomic { !off && (acting & session) != 0 -> acting = acting & ~session; goto done }
    fi;
    /* RP_COMMIT and SESSION_END. */
    atomic {
        !off;
        if
#ifdef BUG_COMMIT_FENCED
        :: true ->
#else
        :: (acting & session) != 0 ->
#endif
            assert(token == newest);
            assert((place & content[work]) != 0);
            points = points | (1 << work);
            acting = acting & ~session;
            open = 0;
            told = 0;
            SAFE
        :: else
        fi
    }
done:
    place = 0;
    seen = 0
}

/* Somebody who takes part in work 1. */
proctype Part()
{
    byte place = 0;
    byte seen = 0;

    atomic { !off && open == 1 -> acting = acting | PART; seen = condemned };
    if
    :: atomic {
        !off && (indexed & content[1] & ~seen) != 0;
        choose((indexed & content[1] & ~seen), place)
    };
        atomic { !off -> checkpoint(PART, 0, place, 1) }
    :: place = PACK(PART);
        upload(place);
        atomic { !off -> checkpoint(PART, place, place, 1) }
    fi;
    atomic { !off -> acting = acting & ~PART; place = 0; seen = 0 }
}

#ifdef POWER

/* The power fails once, at any moment. */
proctype Power()
{
    atomic {
        off = true;
        there = there & durable;
        SAFE
    }
}

#else

/* Deletes points at any time. */
proctype Retention()
{
    byte point = 0;

end:
    do
    :: atomic { points != 0 -> choose(points, point); points = points & ~point; point = 0 }
    od
}

/* A copy of what a point still needs and only condemned packs have. */
inline rescue(work)
{
    if
    :: NEEDED(work) && (indexed & content[work] & ~condemned) == 0 ->
        there = there | COPY(work);
        indexed = indexed | COPY(work)
    :: else
    fi
}

/* Condemns packs, waits, copies what points still need, authorises, deletes. */
proctype Collector()
{
    byte waited = 0; /* sessions that were active when it condemned */
    byte other = 0;

    atomic {
        waited = acting;
        if
        :: condemned = indexed
        :: condemned = indexed & OLD_PACK
        :: condemned = indexed & ~OLD_PACK
        fi
    };
#ifndef BUG_NO_WAIT
    do
    :: atomic { (waited & acting) == 0 -> waited = 0; break }
    /* It ends whom it takes for dead, the living as well. */
    :: atomic {
        (waited & acting) != 0;
        choose((waited & acting), other);
        acting = acting & ~other;
        if
        :: (other & OWNERS) != 0 -> open = 0; told = 0
        :: else
        fi;
        other = 0
    }
    od;
#endif
    /* Mark and copy; points that come later are none of those that it waited for. */
    atomic { rescue(1); rescue(2) };
    /* Authorise. */
    atomic { indexed = indexed & ~condemned; SAFE };
    atomic { there = there & ~condemned; SAFE }
}

#endif

init
{
    atomic {
        content[1] = OLD_PACK | PACK(OWNER_1) | PACK(PART) | COPY(1);
        content[2] = COPY(2);
        run Owner(OWNER_1, 1, 1);
        if
        :: content[1] = content[1] | PACK(OWNER_2);
            run Owner(OWNER_2, 2, 1)
        :: content[2] = content[2] | PACK(OWNER_2);
            run Owner(OWNER_2, 2, 2)
        fi;
        run Part();
#ifdef POWER
        run Power()
#else
        run Retention();
        run Collector()
#endif
    }
}
