"""What the outside may know of a running ``hc_listen``: metrics, liveness, spans."""
