cdef class Stats:
    cdef public double blocked_seconds, stalled_seconds
    cdef public long long bytes_received, bytes_sent, callback_errors, frames_received
    cdef public long long late_calls, late_frames, messages_published, messages_received
    cdef public long long stale_acks, stalls, unknown_confirms, unknown_deliveries
