from evamqp.core.stats cimport Stats
from evamqp.core.thread_bound cimport ThreadBound

cdef class CallbackDispatcher(ThreadBound):
    cdef public object _runtime, deferred, last
    cdef public tuple on_fork
    cdef public Stats stats

    cpdef run_deferred(self)
