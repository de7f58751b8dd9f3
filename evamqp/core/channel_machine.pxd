import cython
from evamqp.core.confirms cimport Confirms
from evamqp.core.outlet cimport Outlet

cdef class ChannelMachine(Outlet):
    cdef public object context, handler, on_oversized_rejected, reason, requests, state
    cdef public object _close_waiters, _confirm_waiters, _former_tags, _held, _make_reporter, _nacked, _of_streams
    cdef public object _skipped_left
    cdef public set cancelling
    cdef public dict consumers
    cdef public Confirms confirms

    @cython.locals(confirms=Confirms)
    cpdef confirm(self, unsigned long long delivery_tag, bint multiple, bint acked)
