/* The overview: reads its figures again, and writes the newest changes below them. Without it the page is complete. */
"use strict";
{
    const SLOWEST = 300; // seconds between two tries after errors
    const LONGEST = 30; // seconds that one request may take: Heroku's router ends it then
    const ROWS = 200; // most changes in the live tail

    /** An error after which no further try makes sense. */
    class Final extends Error {}

    /** Calls `read` every `seconds` while the tab is visible, later after errors; `say` shows the state. */
    class Poller {
        constructor(read, seconds, say) {
            Object.assign(this, { read, seconds, say, running: false, busy: false, failures: 0 });
            document.addEventListener("visibilitychange", () => this.wake());
        }

        start(wait = 0) {
            this.running = true;
            this.failures = 0;
            this.say("");
            this.schedule(wait);
        }

        stop(text) {
            this.running = false;
            clearTimeout(this.timer);
            this.say(text);
        }

        wake() {
            if (!document.hidden && this.running && !this.busy) {
                this.schedule(0);
            }
        }

        schedule(seconds) {
            clearTimeout(this.timer);
            this.timer = setTimeout(() => this.turn(), seconds * 1000);
        }

        async turn() {
            if (document.hidden || !this.running || this.busy) {
                return; // wake(), start() or the turn that is busy goes on
            }
            this.busy = true;
            const [wait, text] = await this.once();
            this.busy = false;
            if (this.running) {
                this.say(text);
                this.schedule(wait);
            }
        }

        /** Read once; return the seconds until the next time, and the text to show. */
        async once() {
            try {
                const isMore = await this.read();
                this.failures = 0;
                return [isMore ? 0 : this.seconds, ""];
            } catch (error) {
                if (error instanceof Final) {
                    this.stop(error.message);
                }
                this.failures += 1;
                const wait = Math.min(SLOWEST, this.seconds * 2 ** this.failures);
                return [wait, `Not read: ${error.message}. The next try is in ${wait} s.`];
            }
        }
    }

    /** Return the element of an answer of ours that has the selector. */
    async function fetched(url, selector) {
        const signal = AbortSignal.timeout(LONGEST * 1000);
        const response = await fetch(url, { credentials: "same-origin", signal }).catch(() => {
            throw new Error("the server gave no answer");
        });
        if (response.redirected || response.status === 403) {
            throw new Final("You are logged out, or may not see this page any more. Load it again.");
        }
        if (!response.ok) {
            throw new Error(`the server answered ${response.status}`);
        }
        return new DOMParser().parseFromString(await response.text(), "text/html").querySelector(selector);
    }

    /** Connect a button to a poller: it starts and pauses. */
    function control(button, poller, paused) {
        button.addEventListener("click", () => {
            if (poller.running) {
                poller.stop(paused);
            } else {
                poller.start();
            }
        });
    }

    /** Return a function that shows the state of a poller, with the button's word for the other one. */
    function speaker(state, button, words, usual) {
        return function (text) {
            button.textContent = this.running ? words.pause : words.start;
            if (state.textContent !== (text || usual)) {
                state.textContent = text || usual;
            }
        };
    }

    /** Replace the figures; what the user has opened, scrolled and focused stays as it is. */
    function replace(part, fresh) {
        const open = [...part.querySelectorAll("details[open]")].map((each) => each.id);
        const scrolled = [...part.querySelectorAll(".hc-scroll")].map((each) => [each.id, each.scrollLeft, each.scrollTop]);
        const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
        const top = window.scrollY;
        part.replaceChildren(...fresh.childNodes);
        const found = (id) => (id ? document.getElementById(id) : null);
        open.map(found).forEach((each) => each && (each.open = true));
        for (const [id, left, down] of scrolled) {
            found(id)?.scrollTo(left, down);
        }
        found(focused)?.focus({ preventScroll: true });
        window.scrollTo({ top, behavior: "instant" });
    }

    function isSelectedIn(part) {
        const selection = document.getSelection();
        return !selection.isCollapsed && part.contains(selection.anchorNode);
    }

    function refresh() {
        const part = document.getElementById("hc-part");
        const line = document.getElementById("hc-refresh");
        const button = line.querySelector("button");
        const usual = `The figures are read again every ${part.dataset.every} seconds.`;
        const words = { start: "Refresh", pause: "Pause" };
        const read = async () => {
            if (!isSelectedIn(part)) {
                replace(part, await fetched(part.dataset.url, "#hc-part"));
            }
        };
        const poller = new Poller(read, Number(part.dataset.every), speaker(line.querySelector("span"), button, words, usual));
        control(button, poller, "Paused.");
        line.hidden = false;
        poller.start(poller.seconds);
    }

    function tail() {
        const box = document.getElementById("hc-live");
        const button = box.querySelector("button");
        const list = box.querySelector("ol");
        let place = "";
        const read = async () => {
            const fresh = await fetched(`${box.dataset.url}?place=${encodeURIComponent(place)}`, "ol");
            place = fresh.dataset.place;
            list.prepend(...fresh.children);
            while (list.children.length > ROWS) {
                list.lastElementChild.remove();
            }
            return fresh.dataset.more === "1";
        };
        const words = { start: "Start", pause: "Pause" };
        const usual = `New changes are read every ${box.dataset.every} seconds.`;
        const poller = new Poller(read, Number(box.dataset.every), speaker(box.querySelector("span"), button, words, usual));
        control(button, poller, "Paused. The next start goes on from here.");
        box.hidden = false;
    }

    document.addEventListener("DOMContentLoaded", () => {
        refresh();
        tail();
    });
}
