cdef class RequestClock:
    cdef public object time, timeout, _paused_at
    cdef public dict started
    cdef public double _lost

    cpdef deadline(self)
