from evamqp.core.callbacks cimport CallbackDispatcher
from evamqp.core.output cimport Output

cdef class Backpressure:
    cdef public Output _output
    cdef public CallbackDispatcher _callbacks
    cdef public object _report, blocked_since
    cdef public set _stopped_channels
    cdef public list _waiters
    cdef public bint is_active, is_writable

    cdef bint _is_pressed(self) except -1
    cpdef changed(self)
