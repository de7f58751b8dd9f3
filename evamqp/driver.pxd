import cython
from evamqp.core.output cimport size_of

cdef Py_ssize_t FLUSH_AT, TAKE_AT_MOST

cdef class Driver:
    cdef public object adapter, time
    cdef public object _attempt, _core, _flush, _held_loss, _late, _target, _timer, _transport
    cdef public list _failures, _held, _targets
    cdef public double _stall_after, _stalled_until, _timer_at, _timer_due
    cdef public bint _inside, _paused, _reading, _writing
    cdef public Py_ssize_t _budget

    @cython.locals(began=double)
    cpdef data_received(self, data)
    @cython.locals(now=double, seconds=double)
    cdef _stalled(self, core, double since, bint in_callback)
    cpdef output_ready(self, Py_ssize_t waiting=*)
    cdef _settle(self)
    @cython.locals(size=Py_ssize_t, pieces=list)
    cdef bint _write(self, core) except -1
    @cython.locals(now=double)
    cdef _arm(self, double at)
