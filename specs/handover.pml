/* Hand-over of shards between workers: hc_signals/log/claims.py, layout.py, and Shard in hc_signals/delivery/shard.py.
 *
 * A worker with SHARDS = FROM delivers. One with SHARDS = TO starts at any moment: it takes over, or splits the records
 * again. The first one may be frozen, at most twice: the server ends its sessions, others go on, then it thaws. It may
 * also die. A snapshot is the set of the changes visible in it: reader.pml has shown that this is what a window reads.
 *
 * With NOT_ATOMIC (the setting ATOMIC = False) each call is committed at once, and the claim has a session of its own.
 * Only that session ends: this is the worst case.
 */

#ifndef FROM
#define FROM 1
#endif
#ifndef TO
#define TO 2
#endif
#ifndef CHANGES
#define CHANGES 4
#endif
#define WORKERS 2
#define FREE WORKERS
#define EVERYTHING ((1 << CHANGES) - 1)

/* The log. Changes are numbered by id; those with even ids are of one record, the others of another. */
byte visible;  /* a bit for each committed change */
#define record_of(id)  ((id) % 2)
#define has(set, member)  (((set) >> (member)) & 1)

/* The newest hc_signals_position by shard */
typedef Position {
    byte seen;
    bool is_open;
    byte target;
    byte last;  /* 1 above the last id that is delivered of the open window */
};
Position position[2];
byte layout = FROM;  /* `shards` of the newest position of the consumer */

/* Advisory locks of transactions: by shard, and for the layout */
byte claim[2] = FREE;
byte layout_lock = FREE;
bool is_lost[WORKERS];  /* the session has ended: the worker finds out when it uses it */

byte effects;  /* a bit for each change whose receiver has written, committed */

bool lost, twice, inverted, went_back;
ltl every_promise { [] !(lost || twice || inverted || went_back) }
ltl at_least_once { [] !(lost || inverted) }
ltl layout_stays { [] !went_back }
ltl nothing_lost { [] !lost }
ltl nothing_twice { [] !twice }
ltl order_per_record { [] !inverted }

hidden byte i;

/* Transactions commit in any order, but those that change one record one after the other. */
active proctype Writers() {
    byte next[2];
    next[1] = 1;
    do
    :: d_step { next[0] < CHANGES -> visible = visible | (1 << next[0]); next[0] = next[0] + 2 }
    :: d_step { next[1] < CHANGES -> visible = visible | (1 << next[1]); next[1] = next[1] + 2 }
    :: next[0] >= CHANGES && next[1] >= CHANGES -> break
    od
}

inline commit_effect(id) {
    if
    :: has(effects, id) -> twice = true
    :: else ->
        for (i : 0 .. CHANGES - 1) {
            if :: i > id && record_of(i) == record_of(id) && has(effects, i) -> inverted = true :: else fi
        }
        i = 0;
        effects = effects | (1 << id)
    fi
}

inline commit_effects(set) {
    for (id : 0 .. CHANGES - 1) {
        if :: has(set, id) -> commit_effect(id) :: else fi
    }
    id = 0
}

inline end_transaction() {
    for (i : 0 .. 1) { if :: claim[i] == me -> claim[i] = FREE :: else fi }
    i = 0;
    if :: layout_lock == me -> layout_lock = FREE :: else fi
}

inline copy_position(from, to) {
    to.seen = from.seen;
    to.is_open = from.is_open;
    to.target = from.target;
    to.last = from.last
}

inline forget(it) {
    it.seen = 0; it.is_open = false; it.target = 0; it.last = 0
}

hidden byte id, count;

/* window.read_page(): collects the next changes in `page`, at most `limit`; then position `p` is as it will be stored. */
#define is_next(c, shard, shards)  (has(p.target & ~p.seen, c) && c >= p.last && record_of(c) % (shards) == shard)

inline read_page(shard, shards) {
    if :: !p.is_open -> p.is_open = true; p.target = visible; p.last = 0 :: else fi;
    page = 0;
    count = 0;
    for (id : 0 .. CHANGES - 1) {
        if
        :: count < limit && is_next(id, shard, shards) -> page = page | (1 << id); count++; p.last = id + 1
        :: else
        fi
    }
    id = 0;
    if
    :: count == limit  /* Outcome.MORE */
    :: else -> p.seen = p.target; p.is_open = false; p.target = 0; p.last = 0  /* window.close_window() */
    fi;
    count = 0
}

inline append_position(shard, shards) {  /* positions.append() */
    copy_position(p, position[shard]);
    went_back = went_back || (layout == TO && shards != TO);
    layout = shards
}

inline forget_page() {
    end_transaction(); forget(p); page = 0; limit = 0; shard = 0
}

inline deliver_claimed(number, shards) {
    copy_position(position[number], p);
    limit = 2;
    read_page(number, shards);
    commit_effects(page);
    append_position(number, shards);
    forget(p); page = 0; limit = 0
}

inline step_of_reshard() {  /* layout._reshard(), with every claim */
    if
    :: layout == 1 && position[0].is_open -> deliver_claimed(0, 1)
    :: layout == 2 && (position[0].is_open || position[1].is_open) ->
        if :: position[0].is_open -> deliver_claimed(0, 2) :: else fi;
        if :: position[1].is_open -> deliver_claimed(1, 2) :: else fi
#if !defined(FROM_THE_LATEST) && !defined(FROM_THE_EARLIEST)
    :: layout == 2 && !position[0].is_open && !position[1].is_open && position[0].seen != position[1].seen ->
        for (i : 0 .. 1) {  /* _open_common_window() */
            position[i].is_open = true;
            position[i].target = visible;
            position[i].last = 0
        }
        i = 0
#endif
    :: else ->
#ifdef FROM_THE_LATEST
        if :: layout == 2 -> position[0].seen = position[0].seen | position[1].seen :: else fi;
#endif
#ifdef FROM_THE_EARLIEST
        if :: layout == 2 -> position[0].seen = position[0].seen & position[1].seen :: else fi;
#endif
        if
        :: TO == 2 -> copy_position(position[0], position[1])
        :: else -> forget(position[1])
        fi;
        layout = TO
    fi
}

#define is_done(shard)  (position[shard].seen == EVERYTHING && !position[shard].is_open)

proctype Worker(byte me; byte shards) {
    Position p;
    byte shard, page, limit, called;
    /* Worker.prepare(): layout.take_layout(), step by step, each in a transaction */
    do
    :: me == 0 -> break  /* it has started long ago */
    :: atomic { me == 1 && layout_lock == FREE -> layout_lock = me };
       if
       :: d_step { layout == shards -> end_transaction() }; break
       :: else ->
#ifndef RESHARD_WITHOUT_CLAIMS
          atomic { claim[0] == FREE -> claim[0] = me };  /* claim_all() */
          atomic { claim[1] == FREE -> claim[1] = me };
#endif
          d_step { limit = 2; step_of_reshard(); end_transaction() }
       fi
    od;
    /* Worker.run(): Shard.deliver_page() */
    do
    :: me == 1 && is_done(0) && (TO == 1 || is_done(1)) -> break
    :: me == 0 || !is_done(0) || (TO == 2 && !is_done(1)) ->
        if :: true :: shards == 2 -> shard = 1 fi;
#ifdef STANDING_BEFORE_CLAIM
        d_step { copy_position(position[shard], p) };
#endif
        atomic {
#ifdef NO_CLAIM
            true;
#else
            if
            :: claim[shard] == FREE -> claim[shard] = me
            :: else -> forget_page(); goto next  /* Outcome.ELSEWHERE */
            fi;
#endif
#ifndef STANDING_BEFORE_CLAIM
            copy_position(position[shard], p);
#endif
#ifndef LAYOUT_NOT_CHECKED
            if
            :: layout != shards -> forget_page(); goto refused  /* Shard._refusal() */
            :: else
            fi;
#endif
        };
        if :: limit = 1 :: limit = 2 fi;
        d_step { read_page(shard, shards) };
#ifndef NOT_ATOMIC
#ifdef POSITION_FIRST
        d_step { if :: !is_lost[me] -> append_position(shard, shards) :: else fi };
        d_step { if :: !is_lost[me] -> commit_effects(page) :: else fi; is_lost[me] = false; forget_page() }
#elif defined(EFFECTS_FIRST)
        d_step { if :: !is_lost[me] -> commit_effects(page) :: else fi };
        d_step { if :: !is_lost[me] -> append_position(shard, shards) :: else fi; is_lost[me] = false; forget_page() }
#else
        d_step {
            if :: !is_lost[me] -> commit_effects(page); append_position(shard, shards) :: else fi;
            is_lost[me] = false;
            forget_page()
        }
#endif
#else
        do
        :: called < CHANGES ->
            if
            :: !has(page, called)
            :: has(page, called) && is_lost[me] -> break  /* Claim.confirm() */
            :: has(page, called) && !is_lost[me] -> d_step { commit_effect(called) }
            fi;
            called++
        :: else -> break
        od;
#ifdef POSITION_OUTSIDE_CLAIM  /* in another session, after the last Claim.confirm() */
        if
        :: !is_lost[me] -> d_step { append_position(shard, shards) }
        :: else
        fi;
        d_step { called = 0; is_lost[me] = false; forget_page() }
#else  /* HeldLock.commit() */
        atomic {
            if :: !is_lost[me] -> append_position(shard, shards) :: else fi;
            called = 0; is_lost[me] = false; forget_page()
        }
#endif
#endif
next:   true
    od;
    lost = (effects != EVERYTHING);
refused:
    true
}

active proctype Freezer() {
    byte times;
    do
    :: d_step {
        times < 2 && (claim[0] == 0 || claim[1] == 0) ->
        times++;
        if :: claim[0] == 0 -> claim[0] = FREE :: else fi;
        if :: claim[1] == 0 -> claim[1] = FREE :: else fi;
#ifndef LEASE  /* a claim that ends at a time, while its owner's transaction goes on */
        is_lost[0] = true
#endif
       }
    :: break
    od
}

init {
    atomic {
        run Worker(0, FROM);
        run Worker(1, TO)
    }
}
