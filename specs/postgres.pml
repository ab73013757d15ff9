/* PostgreSQL, as far as the models need it: transaction ids, commit, abort, snapshots.
 *
 * Transactions get their ids (xids) from 1 upwards, each at its first write. They end in any order. A model defines
 * XIDS: one more than the highest xid.
 */

mtype:status = { unborn, in_progress, committed, aborted };
mtype:status status[XIDS] = unborn;
byte next_xid = 1;
byte latest_completed;  /* the highest xid that has ended */

/* pg_snapshot: each xid below xmax has ended, but for those in xip. */
typedef Snapshot {
    byte xmax = 1;
    byte xip  /* a bit for each xid that is in progress */
};

#define has(set, member)  (((set) >> (member)) & 1)
#define ended_in(snapshot, xid)  ((xid) < snapshot.xmax && !has(snapshot.xip, xid))

hidden byte x;

inline assign_xid(xid) {
    xid = next_xid;
    status[xid] = in_progress;
    next_xid++
}

inline end_xid(xid, how) {
    status[xid] = how;
    if :: latest_completed < xid -> latest_completed = xid :: else fi
}

/* pg_current_snapshot(). Its xmax is above the highest xid that has *ended*: higher ones may be in use already. It lists
 * no xid of the session itself, `own`; 0: the session has none. */
inline take_snapshot(snapshot, own) {
    snapshot.xmax = latest_completed + 1;
    snapshot.xip = 0;
    for (x : 1 .. XIDS - 1) {
        if
        :: x < snapshot.xmax && status[x] == in_progress && x != own -> snapshot.xip = snapshot.xip | (1 << x)
        :: else
        fi
    }
    x = 0
}

inline copy_snapshot(from, to) {
    to.xmax = from.xmax;
    to.xip = from.xip
}
