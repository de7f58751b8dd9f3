import cython
from evamqp.adapters._network cimport SelectorNetwork
from evamqp.adapters._selector cimport Interrupt, LoopSelector
from evamqp.adapters._timers cimport Call, Timers

cdef class SelectAdapter(SelectorNetwork):
    cdef public Interrupt _interrupt
    cdef public LoopSelector _selector
    cdef public Timers _timers
    cdef public object _ready, _when_closed
    cdef public unsigned long _thread
    cdef public bint _is_running, _is_stopping

    @cython.locals(call=Call)
    cpdef call_soon(self, callback)
    @cython.locals(when=double)
    cpdef call_later(self, delay, callback)
    cpdef run_ready(self)
    @cython.locals(now=double)
    cpdef turn(self, timeout=*, lock=*, on_wake=*)
    @cython.locals(interrupt=Interrupt, now=double)
    cdef _turn(self)
    @cython.locals(interrupt=Interrupt, call=Call)
    cdef _run_ready(self)
    @cython.locals(due=double, delay=double)
    cdef _longest_sleep(self)
