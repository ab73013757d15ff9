/* The doorbell: hc_signals/worker/doorbell.py, bell_lock.py, and hc_signals_ring() in migrations_sql/02_capture.sql.
 *
 * Worker processes of one or two threads deliver until nothing is left, then sleep. Writers notify only if a process
 * holds the bell's lock. One process may be killed, be stopped by SIGTERM, or lose its connection, at any moment.
 * There is no polling: POLL_INTERVAL is endless. So only the lock and the notifications can wake a sleeper.
 */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef THREADS
#define THREADS 1  /* of process 0; process 1 has one */
#endif
#define PROCESSES 2
#define FREE 2

/* The server. A session is the LISTEN connection of a process. */
byte holder = FREE;         /* the session that holds the bell's lock alone */
byte shares;                  /* writers that share it */
bool listens[PROCESSES];      /* the session is open, and LISTENs */
bool is_notified[PROCESSES];  /* a notification of another session has arrived at the process */
bool unread;                  /* a committed change is not read yet */

/* Doorbell and BellLock, by process */
mtype = { none, unlock, unlock_and_notify, notify };
mtype releasing[PROCESSES] = none;  /* what the server has still to do of BellLock.release() */
bool guard[PROCESSES], is_connected[PROCESSES], is_broken[PROCESSES], is_held[PROCESSES], is_asleep[PROCESSES];
bool has_listener[PROCESSES], is_stopping[PROCESSES], is_dead[PROCESSES];
byte sleepers[PROCESSES], ended[PROCESSES];
bool is_woken[THREADS + 1];  /* Doorbell._rings has changed since the thread fell asleep */

bool missed;
ltl bell_never_missed { [] !missed }
ltl nothing_waits_forever { [] (unread -> <> !unread) }

#define threads_of(p)  (p == 0 -> THREADS : 1)

hidden byte i;

inline notify_all_but(p) {
    for (i : 0 .. PROCESSES - 1) {
        if :: i != p && listens[i] -> is_notified[i] = true :: else fi
    }
    i = 0
}

inline end_session(p) {
    listens[p] = false;
    is_notified[p] = false;
    releasing[p] = none;
    if :: holder == p -> holder = FREE :: else fi
}

/* A statement with its trigger, then the end of the transaction. */
active [WRITERS] proctype Writer() {
    bool shared;
    atomic {  /* hc_signals_ring(): pg_try_advisory_xact_lock_shared(), else pg_notify() */
        if :: holder == FREE -> shares++; shared = true :: else fi
    };
#ifdef SHARE_ENDS_EARLY  /* as after ROLLBACK TO SAVEPOINT, or with a lock of the statement */
    d_step { if :: shared -> shares-- :: else fi };
#endif
#ifdef RING_BEFORE_COMMIT  /* as from another session */
    d_step { if :: !shared -> notify_all_but(FREE) :: else fi };
#endif
    if
    :: unread = true;  /* COMMIT: first the changes become visible */
#ifndef SHARE_ENDS_EARLY
       d_step { if :: shared -> shares-- :: else fi };  /* then the locks end */
#endif
#ifndef RING_BEFORE_COMMIT
       d_step { if :: !shared -> notify_all_but(FREE) :: else fi };  /* then the notification goes out */
#endif
    :: d_step { if :: shared -> shares-- :: else fi }  /* ROLLBACK */
    fi
}

/* Executes what BellLock.release() has sent, and ends the session when its process is gone. */
proctype Server(byte p) {
    do
    :: d_step { releasing[p] == unlock -> if :: holder == p -> holder = FREE :: else fi; releasing[p] = none }
    :: d_step { releasing[p] == unlock_and_notify -> if :: holder == p -> holder = FREE :: else fi; releasing[p] = notify }
    :: d_step { releasing[p] == notify -> notify_all_but(p); releasing[p] = none }
    :: d_step { listens[p] && (is_dead[p] || ended[p] == threads_of(p) && releasing[p] == none) -> end_session(p) }
    od
}

/* Doorbell._end_sleep() */
inline end_sleep(p, how) {
    is_asleep[p] = false;
    if
    :: is_held[p] && !is_broken[p] -> releasing[p] = how
    :: else
    fi;
    is_held[p] = false
}

/* Doorbell._wake_all() */
inline wake_all(p) {
    is_woken[0] = is_woken[0] || p == 0;
    if :: THREADS > 1 -> is_woken[1] = is_woken[1] || p == 0 :: else fi;
    is_woken[THREADS] = is_woken[THREADS] || p == 1;
    end_sleep(p, unlock)
}

/* Doorbell._give_up(): closes the connection after an error. */
inline give_up(p) {
    is_connected[p] = false;
    is_broken[p] = false;
    is_held[p] = false;
    is_asleep[p] = false
}

#define sleeps  (!is_woken[me] && !is_stopping[p])
#define leave(p)  guard[p] = false

/* Doorbell.sleep(), once the lock is held by this or another process */
inline lie_down(p) {
    sleepers[p]++;
    is_woken[me] = false
}

proctype Thread(byte me; byte p) {
    bool is_listener, took;
    {
    true;
deliver:
        if
        :: is_stopping[p] -> goto done
        :: d_step { !is_stopping[p] -> unread = false }  /* Worker._deliver_round(), until nothing is left */
        fi;
        atomic {
            !guard[p];
            if
            :: is_asleep[p] -> lie_down(p); goto asleep
            :: else -> guard[p] = true
            fi
        };
        /* Doorbell._fall_asleep() */
        releasing[p] == none;  /* finish_release() */
        if
        :: d_step { is_broken[p] -> give_up(p); leave(p) }; goto deliver
        :: d_step { !is_broken[p] && !is_connected[p] -> is_connected[p] = true; listens[p] = true; leave(p) }; goto deliver
        :: d_step { !is_broken[p] && is_connected[p] ->  /* take(): pg_try_advisory_lock() */
            took = (holder == FREE && shares == 0);
            if :: took -> holder = p :: else fi }
        fi;
        atomic {
            if
            :: is_broken[p] -> took = false; give_up(p); leave(p); goto deliver
            :: else
            fi;
            is_held[p] = took;  /* and whether another session holds it */
            is_asleep[p] = (took || holder != FREE);
            took = false;
            leave(p);
            if
            :: is_asleep[p] -> lie_down(p)
            :: else -> goto deliver  /* after a pause: a writer shares the lock */
            fi
        };
asleep:
#ifndef NO_SECOND_READ
        if
        :: unread -> goto up  /* is_waiting() */
        :: else
        fi;
#endif
#ifdef CLEAR_AFTER_READ  /* drop what has arrived before the sleep */
        is_notified[p] = false;
#endif
        do
        :: !sleeps -> break
        :: d_step { sleeps && !is_listener && !has_listener[p] && !guard[p] -> has_listener[p] = true; is_listener = true }
        :: d_step { sleeps && is_listener && is_notified[p] && !guard[p] -> is_notified[p] = false; wake_all(p) }
        :: d_step { sleeps && is_listener && is_broken[p] && !guard[p] -> give_up(p); wake_all(p) }
#ifndef LOCK_NOT_WATCHED
        /* Twice a second it tries the lock if another process holds it. Without effect unless the lock is free. */
        :: d_step { sleeps && is_listener && !is_held[p] && !is_broken[p] && holder == FREE && !guard[p] ->
            took = (shares == 0);
            if :: took -> holder = p :: else fi };
           d_step {
            if
            :: is_broken[p]
            :: !is_broken[p] && (took || holder == FREE) -> is_held[p] = took; wake_all(p)
            :: else
            fi;
            took = false }
#endif
        od;
up:     atomic {  /* Doorbell._get_up() */
            !guard[p] ->
            sleepers[p]--;
            if :: is_listener -> has_listener[p] = false; is_listener = false :: else fi;
            if
            :: sleepers[p] == 0 && is_asleep[p] -> end_sleep(p, unlock_and_notify)
            :: else
            fi
        };
        goto deliver;
done:   ended[p]++
    } unless { is_dead[p] }
}

active proctype Faults() {
    byte p;
    if :: p = 0 :: p = 1 fi;
    if
    :: true
    :: is_dead[p] = true
    :: d_step { listens[p] -> is_broken[p] = true; end_session(p) }
    :: is_stopping[p] = true
    fi
}

active proctype Check() {
    timeout -> missed = unread
}

init {
    atomic {
        run Server(0);
        run Server(1);
        run Thread(0, 0);
        if :: THREADS > 1 -> run Thread(1, 0) :: else fi;
        run Thread(THREADS, 1)
    }
}
