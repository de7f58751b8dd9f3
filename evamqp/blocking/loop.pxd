import cython
from evamqp.adapters.select cimport SelectAdapter
from evamqp.core.connection cimport Connection

cdef class SharedLoop:
    cdef object __weakref__
    cdef public SelectAdapter adapter
    cdef public Connection connection
    cdef public object _is_locked_here, _lock, _stop_keeper
    cdef public tuple _keeper_mark
    cdef public list _followers
    cdef public double _left_at, _read_at
    cdef public unsigned long _bound, _leader
    cdef public bint is_forked, is_over, _is_full, _is_inside, _is_keeping

    cpdef enter(self)
    cdef _bind(self)
    cdef _look(self)
    cdef bint _has_kept_enough(self) except -1
    @cython.locals(adapter=SelectAdapter)
    cpdef flush(self)
    @cython.locals(before="unsigned long", adapter=SelectAdapter)
    cdef bint _lead(self, done, deadline) except -1
    cdef bint _follow(self, done, deadline) except -1
    cdef _release_followers(self)
