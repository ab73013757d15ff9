/* The rotation of the log: hc_signals/log/rotation.py, hc_signals_admit() in migrations_sql/02_capture.sql.
 *
 * Writers append to the bucket of the present time. Consumers read and deliver. A replay reads a bucket in two
 * statements of one transaction. The rotation locks the older bucket by LOCK ... NOWAIT and empties it.
 * A snapshot is the set of the changes visible in it: see reader.pml.
 */

#ifndef WRITERS
#define WRITERS 3
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef TIMES
#define TIMES 1
#endif
#define BUCKETS 2
#define NO_BUCKET 255
#define has(set, member)  (((set) >> (member)) & 1)

byte bucket_now;          /* hc_signals_bucket() */
byte visible;             /* a bit for each committed change; the change of writer n is n */
byte bucket[BUCKETS];     /* the changes in it, committed or not */
byte users[BUCKETS];      /* transactions that hold ROW EXCLUSIVE or ACCESS SHARE on it */
bool is_locked[BUCKETS];  /* ACCESS EXCLUSIVE, by the rotation */
bool is_waiting[BUCKETS]; /* a request for it: later requests queue behind it */
byte seen[CONSUMERS];     /* hc_signals_position, newest */
#ifdef ROTATE_BY_READ
byte read_by[CONSUMERS];  /* what a page has read, delivered or not */
#endif
byte delivered[CONSUMERS];
byte uncaptured;          /* changes that a writer has given up after 10 ms: a gap is reported */
byte ended;

bool lost, vanished, queued;
ltl every_promise { [] !(lost || vanished || queued) }
ltl nothing_lost { [] !lost }
ltl rows_stay_while_read { [] !vanished }
ltl no_request_queues { [] !queued }

hidden byte i;

#define may_use(b)  (!is_locked[b] && !is_waiting[b])

proctype Writer(byte me) {
    byte in = NO_BUCKET, also = NO_BUCKET;
    /* hc_signals_admit(): LOCK TABLE ... IN ROW EXCLUSIVE MODE, for 10 ms at most */
    in = bucket_now;
    if
    :: atomic { may_use(in) -> users[in]++ }
    :: d_step { !may_use(in) -> queued = queued || is_waiting[in]; in = NO_BUCKET }; goto lose
    fi;
    /* The INSERT. The time may have passed into the next bucket. */
    if
    :: atomic { bucket_now == in -> bucket[in] = bucket[in] | (1 << me) }
    :: atomic { bucket_now != in && may_use(bucket_now) ->
        also = in; in = bucket_now; users[in]++; bucket[in] = bucket[in] | (1 << me) }
    fi;
    if
    :: visible = visible | (1 << me)  /* COMMIT */
    :: bucket[in] = bucket[in] & ~(1 << me)  /* ROLLBACK */
    fi;
    d_step {
        users[in]--;
        if :: also != NO_BUCKET -> users[also]-- :: else fi;
        in = NO_BUCKET; also = NO_BUCKET
    };
    goto done;
lose:
    uncaptured = uncaptured | (1 << me);
done:
    ended++
}

active proctype Time() {
    do
    :: bucket_now < BUCKETS - 1 -> bucket_now++
    :: break
    od
}

inline use_all(count) {
    for (i : 0 .. BUCKETS - 1) { users[i] = users[i] + (count) }
    i = 0
}

#define log_now  (bucket[0] | bucket[1])
#define is_usable  (may_use(0) && may_use(1))

proctype Consumer(byte me) {  /* Shard.deliver_page() */
    byte target, page;
    do
    :: seen[me] != visible || ended != WRITERS ->
        target = visible;  /* hc_signals_target(): no lock on the log */
        queued = queued || is_waiting[0];
        atomic {  /* hc_signals_page(): ACCESS SHARE until the end of the transaction */
            is_usable -> use_all(1);
            page = log_now & visible & target & ~seen[me];
#ifdef ROTATE_BY_READ
            read_by[me] = target
#endif
        };
        if
        :: d_step { delivered[me] = delivered[me] | page; seen[me] = target; use_all(-1); target = 0; page = 0 }
        :: d_step { use_all(-1); target = 0; page = 0 }  /* the worker dies */
        fi
    :: else -> break
    od;
    lost = lost || (delivered[me] != visible)
}

/* Reads changes and then their images: hc_signals/delivery/replay.py; a backup does alike. */
active proctype Replay() {
    byte rows;
    atomic { may_use(0) -> users[0]++; rows = bucket[0] & visible };
    vanished = vanished || (rows & ~bucket[0]);
    users[0]--
}

#ifdef ROTATE_BY_READ
#define is_done_for(consumer, b)  ((bucket[b] & visible & ~read_by[consumer]) == 0)
#else
#define is_done_for(consumer, b)  ((bucket[b] & visible & ~seen[consumer]) == 0)
#endif
#if CONSUMERS == 2
#define is_done(b)  (is_done_for(0, b) && is_done_for(1, b))
#else
#define is_done(b)  is_done_for(0, b)
#endif

active proctype Rotation() {  /* rotation.rotate_bucket(); above MAX_LOG_MB also for the newest bucket */
    byte times;
    do
    :: times < TIMES ->
        times++;
        if
        :: !is_done(0)
        :: is_done(0) ->
#ifdef LOCK_WAITS
            if
            :: atomic { users[0] == 0 -> is_locked[0] = true }
            :: else -> is_waiting[0] = true; atomic { users[0] == 0 -> is_waiting[0] = false; is_locked[0] = true }
            fi;
#elif defined(TRUNCATE_WITHOUT_LOCK)
            is_locked[0] = true;
#else
            if
            :: atomic { users[0] == 0 -> is_locked[0] = true }  /* LOCK ... NOWAIT */
            :: users[0] > 0 -> goto later
            fi;
#endif
#ifndef CHECK_BEFORE_LOCK
            if :: !is_done(0) -> goto unlock :: else fi;  /* empty_bucket() */
#endif
            bucket[0] = 0;  /* TRUNCATE */
unlock:     is_locked[0] = false;
later:      true
        fi
    :: break
    od
}

init {
    atomic {
        for (i : 0 .. WRITERS - 1) { run Writer(i) }
        for (i : 0 .. CONSUMERS - 1) { run Consumer(i) }
        i = 0
    }
}
