/* The reader by two snapshots: hc_signals/log/window.py, migrations_sql/03_reading.sql.
 *
 * Writers change two records. Each takes its xid at some moment, makes changes, draws their ids under the lock of the
 * record's row, and commits or rolls back. So xids, ids and commits have different orders. The worker delivers pages of
 * its shards in any order, and may die in any of them. Once, a receiver changes a record as well.
 */

#ifndef WRITERS
#define WRITERS 3
#endif
#ifndef SHARDS
#define SHARDS 2
#endif
#ifndef IDS
#define IDS 4
#endif
#define XIDS (WRITERS + 2)
#include "postgres.pml"

/* hc_signals_change, by id. A row without xid does not exist. */
typedef Change {
    byte xid;
    bit record;
    byte step  /* the record's changes, counted as they happen */
};
Change change[IDS + 1];
byte drawn;  /* how many ids were drawn */

/* hc_signals_position: hc_signals.log.position.Position */
typedef Position {
    Snapshot seen;
    byte floor_id;
    byte floor_xid = 1;
    bool is_open;  /* target is not NULL */
    Snapshot target;
    byte ceiling_id;
    byte next_floor_id;
    byte next_floor_xid;
    byte last_id
};
Position position[SHARDS];

byte row_lock[2];  /* by record: the xid that has locked its row */
byte steps[2];
byte writers_begun, writers_ended;
bool receiver_wrote;
byte is_delivered;  /* a bit for each id */

bool lost, twice, inverted, delayed;
ltl every_promise { [] !(lost || twice || inverted || delayed) }
ltl nothing_lost { [] !lost }
ltl nothing_twice { [] !twice }
ltl order_per_record { [] !inverted }
ltl others_never_delay { [] !delayed }

#define last_value  (drawn -> drawn : 1)  /* of the sequence: also 1 before the first id is drawn */
#define is_free(record, by)  (row_lock[record] == 0 || row_lock[record] == by)
#define is_committed(id)  (change[id].xid && status[change[id].xid] == committed)
#define is_of(id, shard)  (change[id].record % SHARDS == shard)

hidden byte i, row;

inline log_change(id, by, rec) {
    steps[rec]++;
    change[id].xid = by;
    change[id].record = rec;
    change[id].step = steps[rec]
}

/* A statement, and in it the capture trigger: hc_signals.capture.function. It draws the id while the row is locked. */
inline write_change(by, rec) {
    row_lock[rec] = by;
    drawn++;
    log_change(drawn, by, rec)
}

inline end_transaction(by, how) {
    end_xid(by, how);
    for (i : 0 .. 1) {
        if :: row_lock[i] == by -> row_lock[i] = 0 :: else fi
    }
    i = 0
}

proctype Writer(byte number) {
    byte xid;
    bit rec;
    byte id;
    atomic { writers_begun == number -> writers_begun++; assign_xid(xid) };
    do
#ifdef ID_BEFORE_LOCK  /* or a sequence with a CACHE above 1 */
    :: atomic { drawn < IDS && id == 0 -> drawn++; id = drawn; if :: rec = 0 :: rec = 1 fi }
    :: atomic { id && is_free(rec, xid) -> row_lock[rec] = xid; log_change(id, xid, rec); id = 0; rec = 0 }
#else
    :: d_step { drawn < IDS && is_free(0, xid) -> write_change(xid, 0) }
    /* The records are alike, so the first id is of record 0. */
    :: d_step { 0 < drawn && drawn < IDS && is_free(1, xid) -> write_change(xid, 1) }
#endif
    :: d_step { id == 0 -> end_transaction(xid, committed); writers_ended++ }; break
    :: d_step { end_transaction(xid, aborted); writers_ended++ }; break  /* also if PostgreSQL ends a deadlock */
    od
}

#define late_in(snapshot, id)  (!ended_in(snapshot, change[id].xid))

/* _LATE: the first page of the window begins below the floor if a change came late. */
inline find_first_id() {
    row = position[shard].floor_id;
#ifndef LATE_ONES_IGNORED
    for (i : 1 .. IDS) {
        if
        :: i <= row && is_committed(i) && change[i].xid < position[shard].floor_xid && 
           late_in(position[shard].seen, i) && !late_in(target, i) -> row = i - 1
        :: else
        fi
    }
#endif
    i = 0
}

inline open_window() {
    if
    :: position[shard].is_open
    :: else ->
        find_first_id();
        position[shard].is_open = true;
        copy_snapshot(target, position[shard].target);
        position[shard].ceiling_id = ceiling_id;
        position[shard].next_floor_id = newest_id - 1;
        position[shard].next_floor_xid = next_floor_xid;
        position[shard].last_id = row;
    fi
}

#ifdef ID_CURSOR
byte cursor[SHARDS];
#define is_next(i)  (row == 0 && i > cursor[shard])
#elif defined(XMIN_WATERMARK)
byte cursor[SHARDS];
hidden byte xmin;
#define is_after(i, k)  (change[i].xid > change[k].xid || change[i].xid == change[k].xid && i > k)
#define is_next(i)  (change[i].xid < xmin && is_after(i, cursor[shard]) && (row == 0 || is_after(row, i)))
#else
#define is_next(i) \
    (row == 0 && i > position[shard].last_id && i <= position[shard].ceiling_id && \
     late_in(position[shard].seen, i) && !late_in(position[shard].target, i))
#endif

/* hc_signals_page(): the next row of the page, or 0. */
inline find_next_row() {
    row = 0;
#ifdef XMIN_WATERMARK
    xmin = next_xid;
    for (i : 1 .. XIDS - 1) {
        if :: i < xmin && status[i] == in_progress -> xmin = i :: else fi
    }
#endif
    for (i : 1 .. IDS) {
        if
        :: is_committed(i) && is_of(i, shard) && is_next(i) -> row = i
        :: else
        fi
    }
    i = 0
}

inline deliver(id) {
    if :: has(is_delivered, id) -> twice = true :: else fi;
    for (i : 1 .. IDS) {
        if
        :: has(is_delivered, i) && change[i].record == change[id].record && change[i].step > change[id].step ->
            inverted = true
        :: else
        fi
    }
    i = 0;
    is_delivered = is_delivered | (1 << id)
}

inline check_window() {
    for (i : 1 .. IDS) {
        if
        :: is_committed(i) && is_of(i, shard) && !late_in(position[shard].target, i) && !has(is_delivered, i) ->
            delayed = true
        :: else
        fi
    }
    i = 0
}

inline close_window() {
    copy_snapshot(position[shard].target, position[shard].seen);
    position[shard].floor_id = position[shard].next_floor_id;
    position[shard].floor_xid = position[shard].next_floor_xid;
    position[shard].is_open = false;
    position[shard].target.xmax = 0;
    position[shard].target.xip = 0;
    position[shard].ceiling_id = 0;
    position[shard].next_floor_id = 0;
    position[shard].next_floor_xid = 0;
    position[shard].last_id = 0
}

/* Delivers up to `limit` changes. Receivers' writes and the position commit together: one step. */
inline deliver_page() {
    open_window();
    do
    :: count < limit ->
        find_next_row();
        if
        :: row == 0 -> break
        :: else ->
            deliver(row);
            count++;
            position[shard].last_id = row
#if defined(ID_CURSOR) || defined(XMIN_WATERMARK)
            ; cursor[shard] = row
#endif
        fi
    :: else -> break
    od;
    if
    :: count == limit  /* there may be more; the time may also be up */
    :: else -> check_window(); close_window(); is_drained = is_drained | (is_last << shard)
    fi
}

inline commit() {
    if :: own -> end_transaction(own, committed) :: else fi
}

inline end_page() {
    shard = 0; limit = 0; count = 0; own = 0; newest_id = 0; next_floor_xid = 0; ceiling_id = 0;
    target.xmax = 0; target.xip = 0; is_last = false; row = 0
}

active proctype Worker() {  /* hc_signals.delivery.shard.Shard.deliver_page() */
    byte shard, limit, count, own, newest_id, next_floor_xid, ceiling_id;
    Snapshot target;
    bool is_last;
    byte is_drained;  /* a bit for each shard with nothing left */
    do
    :: is_drained != (1 << SHARDS) - 1 ->
        atomic {
            if :: true :: SHARDS > 1 -> shard = 1 fi;
            if
            :: position[shard].is_open -> goto page
            :: else -> newest_id = last_value  /* hc_signals_standing() */
            fi;
#ifdef CEILING_BEFORE_TARGET
            ceiling_id = last_value
#endif
        };
#ifdef TARGET_AFTER_WRITE
        if :: atomic { !receiver_wrote -> receiver_wrote = true; assign_xid(own) } :: true fi;
#endif
        d_step { take_snapshot(target, own); is_last = (writers_ended == WRITERS) };  /* hc_signals_target() */
#ifdef FLOOR_FROM_XMAX
        next_floor_xid = target.xmax;
#else
        next_floor_xid = next_xid;
#endif
#ifdef NEWEST_AFTER_TARGET
        newest_id = last_value;
#endif
#ifndef CEILING_BEFORE_TARGET
        ceiling_id = last_value;
#endif
page:
#ifdef FRESH_TARGET
        if
        :: d_step {
            position[shard].is_open ->
            take_snapshot(position[shard].target, own);
            position[shard].ceiling_id = last_value
           }
        :: else
        fi;
#endif
        if
        :: d_step { limit = 1; deliver_page(); commit(); end_page() }
        :: d_step { limit = 2; deliver_page(); commit(); end_page() }
        :: atomic {  /* a receiver of the page writes */
            (!receiver_wrote || own) && drawn < IDS -> receiver_wrote = true;
            if :: own == 0 -> assign_xid(own) :: else fi;
            if :: is_free(0, own) -> write_change(own, 0) :: is_free(1, own) -> write_change(own, 1) :: else fi
           };
           if
           :: d_step { limit = 2; deliver_page(); commit(); is_drained = 0; end_page() }
           :: d_step { limit = 0; end_transaction(own, aborted); end_page() }  /* the worker dies */
           fi
        fi
    :: else -> break
    od;
    writers_ended == WRITERS;
    d_step {
        for (i : 1 .. IDS) {
            if :: is_committed(i) && !has(is_delivered, i) -> lost = true :: else fi
        }
    }
}

init {
    byte number;
    for (number : 0 .. WRITERS - 1) { run Writer(number) }
}
