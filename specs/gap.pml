/* When a gap is sent: hc_signals_admit(), hc_signals_lose(), hc_signals_lost() in migrations_sql, and resume() in
 * hc_signals/capture/pausing.py.
 *
 * Capture is paused and resumed. Writers are captured, are not because of the pause, or lose their change because the
 * log is locked or full. On a gap, a receiver reads the table. So each change that was not captured must be followed by
 * a gap. A gap that is sent while its change is uncommitted does not count: the receiver cannot see the change yet.
 */

#ifndef WRITERS
#define WRITERS 2
#endif
#define has(set, member)  (((set) >> (member)) & 1)

bool is_paused;  /* hc_signals_control.paused_at */

/* The advisory lock UNTOLD of hc_signals/postgres/locks.py */
byte sharers;  /* a bit for each writer */
bool is_held, is_waiting;  /* alone, by a resume() that asks for it; requests queue behind one that waits */

byte counted, reported;    /* hc_signals_lost_seq; Position.lost */
byte visible;              /* a bit for each committed change; the change of writer n is n */
byte uncaptured, followed;     /* changes that are not in the log; those of them that were followed by a gap */
byte ended;
bool has_resumed;

bool silent;
ltl no_silent_loss { [] !silent }

#define may_share  (!is_held && !is_waiting)
#define share(me)  sharers = sharers | (1 << me)

proctype Writer(byte me; bool is_repeatable) {
    bool sees_pause;
    /* hc_signals_admit(). Under REPEATABLE READ the snapshot of the first read stays. */
    sees_pause = is_paused;
    if
    :: !sees_pause
    :: sees_pause ->
#ifndef SKIP_WITHOUT_LOCK
        if
        :: atomic { may_share -> share(me) }
#ifdef RESUME_LOCKS_ALONE
        :: !may_share -> goto lose  /* after 10 ms */
#endif
        fi;
#endif
#ifndef PAUSE_READ_ONCE
        if :: !is_repeatable -> sees_pause = is_paused :: else fi;
#endif
#ifndef REPEATABLE_READ_SKIPS
        if :: sees_pause && is_repeatable -> goto lose :: else fi;
#endif
        if :: sees_pause -> uncaptured = uncaptured | (1 << me); goto end :: else fi
    fi;
    if
    :: goto end   /* it is in the log */
    :: goto lose  /* the log is locked or full */
    fi;
lose:  /* hc_signals_lose() */
#ifdef COUNT_BEFORE_LOCK
    counted++;
#endif
#ifndef LOSE_WITHOUT_LOCK
    if
    :: atomic { may_share -> share(me) }
#ifdef RESUME_LOCKS_ALONE
    :: !has(sharers, me) && !may_share  /* after 10 ms */
#endif
    fi;
#endif
#ifndef COUNT_BEFORE_LOCK
    counted++;  /* nextval(): not undone by ROLLBACK */
#endif
    uncaptured = uncaptured | (1 << me);
end:
    if
    :: visible = visible | (1 << me)  /* COMMIT: then the locks end */
    :: uncaptured = uncaptured & ~(1 << me)  /* ROLLBACK */
    fi;
    atomic { sharers = sharers & ~(1 << me); sees_pause = false; ended++ }
}

/* The receiver reads the table after the gap was committed. */
inline send_gap() { followed = followed | (uncaptured & visible) }

active proctype Command() {  /* hc_triggers pause, and later resume */
    byte waiting;
    is_paused = true;
    is_paused = false;  /* _SWITCH_ON */
#ifdef GAP_AT_ONCE
    send_gap();
#elif defined(RESUME_LOCKS_ALONE)
    if
    :: atomic { sharers == 0 -> is_held = true }
    :: atomic { sharers > 0 -> is_waiting = true };
       atomic { sharers == 0 -> is_waiting = false; is_held = true }
    fi;
    atomic { send_gap(); is_held = false };
#else
    waiting = sharers;  /* _wait_for_uncaptured() */
    do
    :: waiting == 0 -> break
    :: waiting != 0 -> waiting = waiting & sharers
    od;
    send_gap();
#endif
    has_resumed = true
}

active proctype Worker() {  /* Shard._report_gaps(), with the number that hc_signals_lost() returns */
    byte count;
    do
    :: reported != counted ->
#ifdef LOCKS_BEFORE_COUNT
        if :: sharers == 0 -> count = counted :: else -> count = reported fi;
        skip;
#else
        count = counted;
#ifndef COUNT_WITHOUT_LOCKS
        if :: sharers > 0 -> count = reported :: else fi;  /* pg_locks */
#endif
#endif
        if
        :: count > reported -> atomic { send_gap(); reported = count }
        :: else
        fi;
        count = 0
    :: ended == WRITERS && reported == counted -> break
    od;
    has_resumed;
    silent = ((uncaptured & visible & ~followed) != 0)
}

init {
    atomic {
        run Writer(0, false);
        run Writer(1, true);
        if :: WRITERS > 2 -> run Writer(2, false) :: else fi
    }
}
