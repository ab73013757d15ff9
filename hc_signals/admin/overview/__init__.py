"""The overview: one page that says whether hc_signals is healthy, shows charts, and the changes as they come.

::

    judge.examine --> health --+
                               +--> page --> overview.html: the whole page, and the part that overview.js fetches again
    log.minutes --> charts -> drawing
    log.tail ----------------------> live --> JSON, which overview.js writes below the charts

page     The admin's view, its permissions and its addresses.
health   The findings of hc_status, the sentence at the top, Heroku Connect's own state.
charts   The figures of each chart, from the table of minutes.
frame    The steps of a period.
drawing  SVG of a chart, and its table.
live     The newest changes, for the live tail.
kept     Keeps results for some seconds, so that ten open pages cost as much as one.
words    Writes numbers, durations and sizes.

Rules:

- The page can be read without JavaScript: it is complete as the server sends it.
- No script or style is inside the page, so it works under a strict Content-Security-Policy.
- A chart differs by place and label, never by colour alone, and has its figures as a table.
"""

from hc_signals.admin.overview.page import MinuteAdmin

__all__ = ("MinuteAdmin",)
