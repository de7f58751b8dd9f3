cdef class WriteFlow:
    cdef public object _call_soon, _stream
    cdef public bint _is_paused, is_full
